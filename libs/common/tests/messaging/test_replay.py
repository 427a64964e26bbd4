"""Reading the event log while it grows, and sending it at a given rate."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import aio_pika
import asyncpg
import pytest

from common.db.database import Database
from common.messaging.replay import Progress, Selection, published, replay
from common.messaging.topology import declare_producer
from common.settings import ServiceSettings
from common.testing.plugin import eventually

NOW = datetime.now(UTC)
RECENT = Selection(since=NOW - timedelta(hours=1))
APPEND = """
    INSERT INTO event_log (event_id, type, subject, version, occurred_at, data)
    VALUES (gen_random_uuid(), 'shop.item.sold.v1', 'item', 1, now(), '{}')"""
APPEND_AT = """
    INSERT INTO event_log (published_at, event_id, type, subject, version, occurred_at, data)
    VALUES ($1, gen_random_uuid(), $2, $3, 1, now(), '{}') RETURNING position"""


@pytest.fixture
async def connections(database: Database) -> AsyncIterator[tuple[Any, Any]]:
    one, other = await asyncpg.connect(database.dsn), await asyncpg.connect(database.dsn)
    yield one, other
    await one.close()
    await other.close()


async def late_queue(amqp: Any) -> None:
    channel = await amqp.channel()
    await declare_producer(channel, "shop")
    await (await channel.declare_queue("late", exclusive=True)).bind("shop.replay", "late")


async def positions(connection: Any, selection: Selection) -> list[int]:
    pages = published(connection, selection, *await selection.bounds(connection))
    return [logged.position async for page in pages for logged in page]


async def test_a_replay_includes_the_batch_that_the_relay_is_publishing_when_it_starts(
    settings: ServiceSettings, connections: tuple[Any, Any]
) -> None:
    """If that batch was published just before the queue was bound, only the replay can deliver it."""
    relay, watcher = connections
    progress = Progress()
    async with await aio_pika.connect(settings.amqp_url.get_secret_value()) as amqp:
        await late_queue(amqp)
        async with relay.transaction():
            assert await relay.fetchval("SELECT pg_try_advisory_xact_lock_shared(hashtext('outbox-relay'))")
            await relay.execute(APPEND)
            replaying = asyncio.create_task(replay(settings, RECENT, to_queue="late", progress=progress))

            async def waits() -> bool:
                return replaying.done() or await watcher.fetchval(
                    "SELECT EXISTS (SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = database"
                    " WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted)"
                )

            await eventually(waits)
        await replaying
    assert progress == Progress(position=1, sent=1, is_complete=True)


async def test_a_replay_ends_however_much_is_published_meanwhile(connections: tuple[Any, Any]) -> None:
    reader, relay = connections
    await relay.execute(APPEND)
    count = 0
    async for page in published(reader, RECENT, *await RECENT.bounds(reader)):
        await relay.execute(APPEND)
        count += len(page)
        assert count == 1


async def test_the_log_is_read_in_published_order_although_the_clock_was_set_back(
    connections: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.messaging.replay._PAGE", 3)
    reader, relay = connections
    steps = (0, 1, 2, -600, -599, 3, -598, 4, -3000, 5)
    expected = [
        await relay.fetchval(APPEND_AT, NOW + timedelta(seconds=step), "a.b.c.v1", f"item-{step}") for step in steps
    ]
    assert await positions(reader, Selection(after=0)) == expected


@pytest.mark.parametrize("page", [1, 3, 500])
async def test_every_selected_event_is_read_once_whatever_gaps_the_positions_have(
    connections: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr("common.messaging.replay._PAGE", page)
    monkeypatch.setattr("common.messaging.replay._WINDOW", 4)
    reader, relay = connections
    rows = []
    for n in range(40):
        if n % 9 == 0:  # positions that a batch which was rolled back has drawn
            await relay.execute("SELECT nextval('event_log_position_seq') FROM generate_series(1, 11)")
        at, event_type, subject = NOW - timedelta(minutes=40 - n), f"a.b.c.v{n % 2}", f"item-{n % 3}"
        rows.append((await relay.fetchval(APPEND_AT, at, event_type, subject), at, event_type, subject))
    for selection in (
        Selection(after=0),
        Selection(after=rows[7][0]),
        Selection(after=rows[39][0]),
        Selection(since=rows[5][1]),
        Selection(since=rows[5][1], until=rows[30][1]),
        Selection(since=rows[30][1], until=rows[5][1]),
        Selection(since=NOW),
        Selection(after=0, types=["a.b.c.v1"]),
        Selection(after=0, subjects=["item-1", "item-2"]),
        Selection(since=rows[5][1], until=rows[30][1], types=["a.b.c.v0"], subjects=["item-1"]),
    ):
        assert await positions(reader, selection) == [
            position
            for position, at, event_type, subject in rows
            if (selection.after is None or position > selection.after)
            and (selection.since is None or at >= selection.since)
            and (selection.until is None or at < selection.until)
            and (not selection.types or event_type in selection.types)
            and (not selection.subjects or subject in selection.subjects)
        ]


async def test_no_transaction_is_open_between_the_pages(
    connections: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.messaging.replay._PAGE", 1)
    reader, watcher = connections
    for _ in range(3):
        await watcher.execute(APPEND)
    async for _ in published(reader, RECENT, *await RECENT.bounds(reader)):
        state = "SELECT state, xact_start, backend_xmin FROM pg_stat_activity WHERE pid = $1"
        assert tuple(await watcher.fetchrow(state, reader.get_server_pid())) == ("idle", None, None)


async def test_a_page_is_read_by_the_index_of_positions(connections: tuple[Any, Any]) -> None:
    reader, relay = connections
    await relay.execute(APPEND.replace("VALUES (", "SELECT ").replace("'{}')", "'{}' FROM generate_series(1, 20000)"))
    await relay.execute("ANALYZE event_log")
    plan = await reader.fetch(
        "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT TEXT)"
        " SELECT * FROM event_log WHERE position > 10000 AND position <= 20000 ORDER BY position LIMIT 500"
    )
    text = "\n".join(row[0] for row in plan)
    assert "_position_idx" in text
    assert "Sort" not in text


async def test_a_replay_sends_no_more_than_its_rate(settings: ServiceSettings, connections: tuple[Any, Any]) -> None:
    _, relay = connections
    for _ in range(30):
        await relay.execute(APPEND)
    sent: list[tuple[float, int]] = []
    progress = Progress()
    async with await aio_pika.connect(settings.amqp_url.get_secret_value()) as amqp:
        await late_queue(amqp)
        started = monotonic()
        await replay(
            settings,
            RECENT,
            to_queue="late",
            progress=progress,
            rate=50,
            reached=lambda: sent.append((monotonic() - started, progress.sent)),
        )
    assert progress.sent == 30
    assert all(count <= 5 + 50 * elapsed for elapsed, count in sent), "a tenth of a second at once"
