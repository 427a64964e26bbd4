"""The consumer processes each event once, whatever fails."""

import json

import aio_pika
import asyncpg
import pytest
from aio_pika.abc import AbstractChannel
from prometheus_client import REGISTRY

from common.db.database import Database, new_id
from common.messaging import consumer, deliveries
from common.messaging.topology import RETRY_TIERS
from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.plugin import eventually

from .consuming import ENDLESS, POISON, TOO_LARGE, consuming, effects, has_effect, is_ready, parked, publish


async def test_an_event_delivered_many_times_has_its_effect_once(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    duplicates = counted("waybill_consumer_messages_total", outcome="duplicate")
    async with consuming(settings, database):
        same = await publish(channel, 1)
        for _ in range(20):
            await publish(channel, 1, same)
        await publish(channel, 2)
        await eventually(lambda: has_effect(database, "2"))
    assert await effects(database) == ["1", "2"]
    assert counted("waybill_consumer_messages_total", outcome="duplicate") == duplicates + 20


async def test_events_repeated_after_later_ones_still_have_their_effects_in_order(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    """A relay that takes over from one that died repeats them so. All are published before the consumer starts, so that
    a batch holds both copies.
    """
    async with consuming(settings, database):
        pass  # declares the queue
    numbers = list(range(100, 140))
    ids = {number: await publish(channel, number) for number in numbers}
    for number in numbers[:20]:
        await publish(channel, number, ids[number])
    async with consuming(settings, database):
        await eventually(lambda: _has_all(database, len(numbers)))
    assert await effects(database) == [str(number) for number in numbers]


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


async def test_a_failing_message_is_parked_with_its_cause_after_the_tiers_while_others_pass(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    parking = counted("waybill_consumer_messages_total", outcome="parked")
    retries = {tier: counted("waybill_consumer_retries_total", tier=tier) for tier in RETRY_TIERS}
    async with consuming(settings, database):
        poison = await publish(channel, POISON)
        for number in range(5):
            await publish(channel, number)
        await eventually(lambda: has_effect(database, "4"))
        ((event_id, cause, attempts, body, _),) = await eventually(lambda: parked(database))
    assert (event_id, cause, attempts) == (str(poison), "ValueError: thirteen", 4)
    assert json.loads(body) == {"number": POISON}
    assert counted("waybill_consumer_messages_total", outcome="parked") == parking + 1
    assert {tier: counted("waybill_consumer_retries_total", tier=tier) - count for tier, count in retries.items()} == (
        dict.fromkeys(RETRY_TIERS, 1)
    )
    assert sorted(await effects(database)) == ["0", "1", "2", "3", "4"]


async def test_a_message_with_a_value_that_the_database_cannot_hold_is_parked_at_once(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        await publish(channel, TOO_LARGE)
        ((_, cause, attempts, _, _),) = await eventually(lambda: parked(database))
    assert "out of int32 range" in cause
    assert attempts == 1


async def test_waiting_events_are_processed_in_batches_each_once(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        pass  # declares the queue
    for number in range(20):
        event_id = await publish(channel, number % 10, verb="returned")
        await publish(channel, number % 10, event_id, verb="returned")
    async with consuming(settings, database):
        await eventually(lambda: _has_all(database, 20))
    assert sum(note.endswith("of 1") for note in await effects(database)) < 20


async def test_one_failing_event_of_a_batch_affects_no_other(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        pass
    for number in (POISON - 1, POISON, POISON + 1):
        await publish(channel, number, verb="returned")
    async with consuming(settings, database):
        ((_, cause, attempts, _, _),) = await eventually(lambda: parked(database))
    assert (cause, attempts) == ("ValueError: thirteen", 4)
    assert await effects(database) == ["12 of 1", "14 of 1"]


async def test_structured_mode_is_understood(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    event = {
        "specversion": "1.0",
        "id": str(new_id()),
        "source": "/shop",
        "type": "shop.item.sold.v1",
        "subject": "item",
        "time": "2026-01-01T00:00:00Z",
        "aggregateversion": 1,
        "data": {"number": 9, "unknown": "field"},
    }
    async with consuming(settings, database):
        message = aio_pika.Message(
            json.dumps(event).encode(), content_type="application/cloudevents+json; charset=utf-8"
        )
        await (await channel.get_exchange("shop.events")).publish(message, "shop.item.sold.v1")
        await eventually(lambda: has_effect(database, "9"))


async def test_a_database_outage_delays_messages_and_uses_up_no_attempt(
    settings: ServiceSettings, database: Database, channel: AbstractChannel, postgres_server: str
) -> None:
    name = database.engine.url.database
    admin = await asyncpg.connect(postgres_server)
    try:
        async with consuming(settings, database) as health:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            await eventually(lambda: _is_unready(health))
            await publish(channel, 1)
            await publish(channel, POISON - 1)
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            await eventually(lambda: has_effect(database, "12"), within=20)
        assert await effects(database) == ["1", "12"]
        assert await parked(database) == []
    finally:
        await admin.close()


async def test_messages_held_in_a_long_outage_go_back_to_the_queue_before_the_broker_takes_them(
    settings: ServiceSettings,
    database: Database,
    channel: AbstractChannel,
    postgres_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliveries, "LONGEST_HOLD", 1.0)
    name = database.engine.url.database
    admin = await asyncpg.connect(postgres_server)

    async def waits_in_the_queue() -> bool:
        return (await channel.declare_queue("shop.inbound", passive=True)).declaration_result.message_count == 1

    async def is_held() -> bool:
        return not await waits_in_the_queue()

    try:
        async with consuming(settings, database) as health:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            await publish(channel, 1)
            await eventually(is_held)
            await eventually(waits_in_the_queue)
            await eventually(lambda: _is_unready(health))
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            await eventually(lambda: has_effect(database, "1"), within=20)
        assert await effects(database) == ["1"]
        assert await parked(database) == []
    finally:
        await admin.close()


async def test_a_handler_that_always_times_out_is_no_outage_and_is_parked_while_others_pass(
    settings: ServiceSettings, database: Database, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "_OUTAGE_PAUSE", 0.01)
    impatient = Database(settings.model_copy(update={"database_timeout": 0.5}))
    try:
        async with consuming(settings, impatient):
            endless = await publish(channel, ENDLESS)
            await publish(channel, 1)
            await eventually(lambda: has_effect(database, "1"), within=20)
            await eventually(lambda: parked(database), within=60)
    finally:
        await impatient.close()
    [message] = await parked(database)
    assert (message.event_id, message.attempts) == (str(endless), len(RETRY_TIERS) + 1)
    assert "TimeoutError" in message.cause
    assert await effects(database) == ["1"]


async def _is_unready(health: Health) -> bool:
    return not (await health.ready())[0]


async def test_deliveries_not_started_at_a_stop_return_to_the_queue_in_order(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        await publish(channel, 0)
        await eventually(lambda: has_effect(database, "0"))
    numbers = range(1000, 1400)
    for number in numbers:
        await publish(channel, number)
    async with consuming(settings, database):
        await eventually(lambda: has_effect(database, "1000"))
    async with consuming(settings, database):
        await eventually(lambda: _has_all(database, 401), within=20)
    assert [*map(int, await effects(database))] == [0, *numbers], "in order, too"


async def _has_all(database: Database, count: int) -> bool:
    return len(await effects(database)) == count


async def test_a_message_that_a_retry_queue_refuses_is_not_lost(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    """Published as mandatory, so a deleted queue is noticed and declared again."""
    async with consuming(settings, database):
        await channel.queue_delete("shop.inbound.retry.5s")
        await publish(channel, POISON)
        ((_, cause, attempts, _, _),) = await eventually(lambda: parked(database), within=20)
    assert (cause, attempts) == ("ValueError: thirteen", 4)


async def test_a_consumer_whose_queue_was_deleted_is_not_ready_until_it_is_attached_again(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database) as health:
        await channel.queue_delete("shop.inbound")
        await eventually(lambda: _is_unready(health))
        await eventually(lambda: is_ready(health))
        await publish(channel, 1)
        await eventually(lambda: has_effect(database, "1"))
