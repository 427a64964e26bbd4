"""Events that can't be sent: which others they delay, and what an operator can do about them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import REGISTRY

from common.db.database import Database, new_id
from common.messaging import event_log, unsendable
from common.messaging.backlog_metrics import measuring_outbox
from common.settings import ServiceSettings
from common.testing.plugin import eventually

from .relaying import counts, equals, relaying, sell

RECORD = """
    INSERT INTO outbox (event_id, type, subject, version, occurred_at, data)
    VALUES (gen_random_uuid(), $1, $2, 1, $3, $4) RETURNING event_id"""
BLOCKED = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
ENDLESS = f"shop.item.{'x' * 300}.v1"
"""AMQP's limit is 255."""
UNSENDABLE = {
    "a type past AMQP's limit": {"event_type": ENDLESS},
    "a subject that no reader accepts": {"subject": "".join(str(new_id()) for _ in range(100))},
    "a time before AMQP's first": {"occurred_at": datetime(1950, 1, 1, tzinfo=UTC)},
    "a body past the broker's limit": {"data": f'{{"text": "{"x" * 2**24}"}}'},
}


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database.dsn)
    yield connection
    await connection.close()


async def record_raw(
    connection: Any,
    event_type: str = "shop.item.sold.v1",
    subject: str = "broken",
    occurred_at: datetime | None = None,
    data: str = "{}",
) -> UUID:
    """Records what `record` would not, or could not be sent by the class that it comes from."""
    event_id: UUID = await connection.fetchval(RECORD, event_type, subject, occurred_at or datetime.now(UTC), data)
    return event_id


async def waiting(connection: Any) -> list[tuple[UUID, int]]:
    """The unsendable events, each with the number of events that wait behind it."""
    return [(row["id"], row["waiting_behind"]) for row in await unsendable.list_waiting(connection, limit=10)]


@pytest.mark.parametrize("properties", UNSENDABLE.values(), ids=list(UNSENDABLE))
async def test_an_event_that_cannot_be_sent_is_set_aside_at_once_and_delays_no_other(
    settings: ServiceSettings, database: Database, subscriber: list[Any], connection: Any, properties: dict[str, Any]
) -> None:
    broken = await record_raw(connection, **properties)
    sent = {str(await sell(database, number, subject=new_id())) for number in range(20)}
    async with relaying(settings):
        await eventually(lambda: equals(counts(database), (1, 20)))
        await eventually(lambda: equals(waiting(connection), [(broken, 0)]))
    assert {message.message_id for message in subscriber} == sent
    assert len(subscriber) == 20
    refused = REGISTRY.get_sample_value("waybill_publish_refused_total", {"type": ENDLESS})
    assert refused is None, "no queue is at fault"


async def test_a_hundred_events_that_cannot_be_sent_hold_back_no_other_of_their_type(
    settings: ServiceSettings, database: Database, subscriber: list[Any], connection: Any
) -> None:
    early = datetime(1950, 1, 1, tzinfo=UTC)
    broken = {await record_raw(connection, subject=str(new_id()), occurred_at=early) for _ in range(100)}
    sent = {str(await sell(database, number, subject=new_id())) for number in range(2)}
    async with relaying(settings):
        await eventually(lambda: equals(counts(database), (100, 2)))
    assert {message.message_id for message in subscriber} == sent
    assert {row["id"] for row in await unsendable.list_waiting(connection, limit=1000)} == broken


async def test_later_events_of_its_aggregate_wait_until_it_is_skipped_and_then_follow_in_order(
    settings: ServiceSettings, database: Database, subscriber: list[Any], connection: Any
) -> None:
    first = await sell(database, 1, subject="item", version=1)
    broken = await record_raw(connection, ENDLESS, "item")
    later = [await sell(database, version, subject="item", version=version) for version in (3, 4)]
    async with relaying(settings):
        await eventually(lambda: equals(counts(database), (3, 1)))
        await eventually(lambda: equals(waiting(connection), [(broken, 2)]))
        other = await sell(database, 5, subject="other")
        later.append(await sell(database, 5, subject="item", version=5))
        await eventually(lambda: equals(counts(database), (4, 2)))
        assert await unsendable.skip(connection, broken, "its class had a typo")
        assert not await unsendable.skip(connection, broken, "again")
        await eventually(lambda: equals(counts(database), (0, 5)))
    assert [message.message_id for message in subscriber] == list(map(str, [first, other, *later]))
    assert await waiting(connection) == []
    kept = await unsendable.find(connection, broken)
    assert kept is not None
    assert (kept["type"], kept["data"], kept["reason"]) == (ENDLESS, "{}", "its class had a typo")
    assert kept["error"] == "TypeError: string exceeds maximum length of 255 bytes"
    assert kept["skipped_at"] >= kept["found_at"]


async def test_an_event_is_sent_once_a_fix_allows_it_and_later_ones_follow(
    settings: ServiceSettings, database: Database, subscriber: list[Any], connection: Any
) -> None:
    broken = await record_raw(connection, ENDLESS, "item")
    later = await sell(database, 2, subject="item", version=2)
    async with relaying(settings):
        await eventually(lambda: equals(waiting(connection), [(broken, 1)]))
        assert await unsendable.retry(connection, [broken, new_id()]) == {broken}
        await eventually(lambda: equals(waiting(connection), [(broken, 1)]))  # nothing was fixed
        await connection.execute("UPDATE outbox SET type = 'shop.item.sold.v1' WHERE event_id = $1", broken)
        assert await unsendable.retry(connection, None) == {broken}
        await eventually(lambda: equals(counts(database), (0, 2)))
    assert [message.message_id for message in subscriber] == [str(broken), str(later)]


async def test_a_relay_that_loses_its_transaction_sets_the_event_aside_in_the_next_one(
    settings: ServiceSettings, database: Database, subscriber: list[Any], connection: Any
) -> None:
    broken = await record_raw(connection, ENDLESS)
    sent = await sell(database, 1, subject="item")
    watcher = await asyncpg.connect(database.dsn)
    try:
        async with relaying(settings):
            async with connection.transaction():
                await connection.execute("LOCK TABLE unsendable_events IN SHARE MODE")  # blocks its INSERT
                for row in await eventually(lambda: watcher.fetch(BLOCKED)):
                    await watcher.execute("SELECT pg_terminate_backend($1)", row["pid"])
            await eventually(lambda: equals(counts(database), (1, 1)))
            await eventually(lambda: equals(waiting(connection), [(broken, 0)]))
    finally:
        await watcher.close()
    assert {message.message_id for message in subscriber} == {str(sent)}


async def test_unsendable_events_are_measured_and_do_not_count_as_late(database: Database, connection: Any) -> None:
    await record_raw(connection, ENDLESS, "item", datetime.now(UTC) - timedelta(hours=1))
    await record_raw(connection, subject="item", occurred_at=datetime.now(UTC) - timedelta(minutes=50))
    await record_raw(connection, subject="other", occurred_at=datetime.now(UTC) - timedelta(minutes=1))
    first = await connection.fetchval("SELECT min(id) FROM outbox")
    await unsendable.set_aside(connection, {first: ValueError("too long")})

    async def measured() -> bool:
        value = REGISTRY.get_sample_value
        age = value("waybill_outbox_oldest_age_seconds") or 0
        return (value("waybill_unsendable_events"), value("waybill_outbox_pending")) == (1, 3) and 60 <= age < 600

    async with measuring_outbox(database.endpoint, "test"):
        await eventually(measured)


async def test_a_skipped_event_is_kept_as_long_as_the_history_and_a_waiting_one_longer(connection: Any) -> None:
    events = [await record_raw(connection, ENDLESS, str(number)) for number in range(3)]
    ids = await connection.fetch("SELECT id FROM outbox")
    await unsendable.set_aside(connection, {row["id"]: ValueError("too long") for row in ids})
    for event_id in events[:2]:
        assert await unsendable.skip(connection, event_id, "a test")
    past = "UPDATE unsendable_events SET skipped_at = skipped_at - $2::interval, found_at = '2020-01-01'"
    await connection.execute(f"{past} WHERE event_id = $1", events[0], timedelta(days=31))
    await connection.execute(f"{past} WHERE event_id = $1", events[1], timedelta(days=29))
    await event_log.maintain(connection, 30)
    kept = await connection.fetch("SELECT event_id FROM unsendable_events ORDER BY outbox_id")
    assert [row["event_id"] for row in kept] == events[1:]
