"""Several workers, in one relay process and in several, share the outbox and keep its order."""

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from common.db.database import Database, new_id
from common.messaging.outbox import record
from common.messaging.outbox_partitions import PARTITIONS
from common.messaging.relay_share import own_partitions
from common.settings import ServiceSettings
from common.testing.plugin import eventually

from .relaying import Sold, counts, equals, relaying, sell

SHARE = "shop-relay-share"


def with_workers(settings: ServiceSettings, count: int) -> ServiceSettings:
    return settings.model_copy(update={"relay_partitions": count})


@asynccontextmanager
async def relay_process(settings: ServiceSettings, workers: int) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("relay_process.py")),
        settings.database_url.get_secret_value(),
        settings.amqp_url.get_secret_value(),
        str(workers),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def sell_versions(database: Database, subjects: list[str], versions: range) -> None:
    """One transaction for each version, with an event of each subject."""
    for version in versions:
        async with database.transaction() as session:
            for subject in subjects:
                await record(session, Sold(number=version), subject=subject, version=version)


async def relays(database: Database) -> list[int]:
    """The backends by which attached relay processes count each other."""
    async with database.transaction() as session:
        found = await session.execute(
            text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = :name"),
            {"name": SHARE},
        )
        return list(found.scalars())


async def attached(database: Database, count: int) -> bool:
    return len(await relays(database)) == count


def first_copies(received: list[Any]) -> dict[str, list[int]]:
    """The versions of each subject in order of arrival, without repetitions."""
    ids, versions = set(), defaultdict(list)
    for message in received:
        if message.message_id not in ids:
            ids.add(message.message_id)
            versions[message.headers["cloudEvents_subject"]].append(message.headers["cloudEvents_aggregateversion"])
    return versions


@pytest.mark.parametrize("workers", [(4,), (1, 2), (3, 64)], ids=str)
async def test_workers_of_any_number_of_processes_publish_each_event_once_and_in_order(
    settings: ServiceSettings, database: Database, subscriber: list[Any], workers: tuple[int, ...]
) -> None:
    subjects = [str(new_id()) for _ in range(40)]
    async with AsyncExitStack() as stack:
        for count in workers:
            await stack.enter_async_context(relaying(with_workers(settings, count)))
        await eventually(lambda: attached(database, len(workers)), within=60)
        await sell_versions(database, subjects, range(1, 11))
        await eventually(lambda: equals(counts(database), (0, 400)), within=90)
    assert first_copies(subscriber) == {subject: list(range(1, 11)) for subject in subjects}
    assert len(subscriber) == 400


async def test_processes_that_all_claim_every_partition_still_publish_each_event_once_and_in_order(
    settings: ServiceSettings, database: Database, subscriber: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def every_partition(_: object) -> tuple[int, ...]:
        return tuple(PARTITIONS)

    monkeypatch.setattr("common.messaging.relay.own_partitions", every_partition)
    monkeypatch.setattr("common.messaging.relay_worker.BATCH", 20)
    subjects = [str(new_id()) for _ in range(40)]
    async with relaying(with_workers(settings, 2)), relaying(with_workers(settings, 4)):
        await eventually(lambda: attached(database, 2), within=60)
        await sell_versions(database, subjects, range(1, 11))
        await eventually(lambda: equals(counts(database), (0, 400)), within=90)
    assert first_copies(subscriber) == {subject: list(range(1, 11)) for subject in subjects}
    assert len(subscriber) == 400


async def test_four_workers_in_two_processes_that_are_killed_and_lose_their_locks_keep_the_order(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    subjects = [str(new_id()) for _ in range(50)]
    admin = await asyncpg.connect(database.dsn)
    try:
        async with relay_process(settings, 2) as first, relay_process(settings, 2) as second:
            await eventually(lambda: attached(database, 2), within=90)
            selling = asyncio.create_task(sell_versions(database, subjects, range(1, 61)))
            await eventually(lambda: logged_more(database, 200), within=90)
            for _ in range(5):  # the transaction of a batch ends, and its locks with it
                before = (await counts(database))[1]
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'shop-relay'"
                )
                await eventually(partial(logged_more, database, before + 50), within=90)
            first.send_signal(signal.SIGKILL)
            await first.wait()
            async with relay_process(settings, 2):
                await eventually(lambda: attached(database, 2), within=90)
                second.send_signal(signal.SIGKILL)
                await second.wait()
                await selling
                await eventually(lambda: equals(counts(database), (0, 3000)), within=180)
    finally:
        await admin.close()
    assert first_copies(subscriber) == {subject: list(range(1, 61)) for subject in subjects}


async def logged_more(database: Database, than: int) -> bool:
    pending, logged = await counts(database)
    return logged > than or pending == 0 == logged - 3000


async def test_a_reader_by_position_skips_no_event_however_many_workers_write_the_log(
    settings: ServiceSettings, database: Database, subscriber: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.messaging.relay_worker.BATCH", 3)  # many commits
    events, seen, last, finished = 600, [], 0, False
    reader = await asyncpg.connect(database.dsn)
    try:
        async with relaying(with_workers(settings, 4)), relaying(with_workers(settings, 4)), asyncio.timeout(60):
            await sell_versions(database, [str(new_id()) for _ in range(events // 2)], range(1, 3))
            while not finished:
                finished = (await counts(database))[0] == 0  # before the last reading
                rows = await reader.fetch(
                    "SELECT position, published_at FROM event_log WHERE position > $1 ORDER BY position", last
                )
                seen += [(row["position"], row["published_at"]) for row in rows]
                last = seen[-1][0] if seen else 0
        stored = await reader.fetch("SELECT position, published_at FROM event_log ORDER BY position")
    finally:
        await reader.close()
    assert seen == [(row["position"], row["published_at"]) for row in stored]
    assert len(seen) == events
    assert [moment for _, moment in seen] == sorted(moment for _, moment in seen)


async def test_processes_share_all_partitions_and_take_over_those_of_one_that_ends(database: Database) -> None:
    connections = [await asyncpg.connect(database.dsn, server_settings={"application_name": SHARE}) for _ in range(3)]
    other = await asyncpg.connect(database.dsn, server_settings={"application_name": "shop-relay"})
    try:
        for count in (3, 2, 1):
            await eventually(partial(attached, database, count))
            shares = [await own_partitions(connection) for connection in connections]
            assert sorted(partition for share in shares for partition in share) == list(PARTITIONS)
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            await connections.pop(0).close()
    finally:
        for connection in (*connections, other):
            await connection.close()


async def test_every_partition_is_published_by_two_processes_and_by_one_that_is_left(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    async with relay_process(settings, 1) as killed, relaying(settings):
        await eventually(lambda: attached(database, 2), within=90)
        for number in range(64):
            await sell(database, number, subject=new_id())
        await eventually(lambda: equals(counts(database), (0, 64)), within=60)
        killed.kill()
        await killed.wait()
        for number in range(64):
            await sell(database, number, subject=new_id())
        await eventually(lambda: equals(counts(database), (0, 128)), within=60)
    assert len(subscriber) == 128


async def test_a_relay_of_release_0_1_0_and_workers_are_never_active_at_once(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    old = await asyncpg.connect(database.dsn)
    lead = "SELECT pg_try_advisory_xact_lock(hashtext('outbox-relay'))"
    try:
        async with relaying(with_workers(settings, 2)):
            await sell(database, 1, subject="item")
            await eventually(lambda: equals(counts(database), (0, 1)))
            transaction = old.transaction()
            await transaction.start()
            await eventually(lambda: old.fetchval(lead))
            await sell(database, 2, subject="item", version=2)
            # What release 0.1.0 does in a batch, meanwhile.
            (row,) = await old.fetch("SELECT id, event_id FROM outbox ORDER BY id LIMIT 500")
            await old.execute(
                "WITH sent AS (DELETE FROM outbox WHERE id = ANY($1::bigint[]) RETURNING *)"
                " INSERT INTO event_log (event_id, type, subject, version, occurred_at, data, traceparent)"
                " SELECT event_id, type, subject, version, occurred_at, data, traceparent FROM sent ORDER BY id",
                [row["id"]],
            )
            await sell(database, 3, subject="item", version=3)
            assert len(subscriber) == 1
            await transaction.commit()
            await eventually(lambda: equals(counts(database), (0, 3)))
    finally:
        await old.close()
    assert [message.headers["cloudEvents_aggregateversion"] for message in subscriber] == [1, 3]
