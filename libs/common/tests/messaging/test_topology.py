"""An event is accepted only through its producer's exchanges. The queues of the last release can be moved."""

import asyncio
import contextlib
import json
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from prometheus_client import REGISTRY

from common.db.database import Database, new_id, utc_now
from common.messaging import broker, topology
from common.messaging.cloudevents import Envelope, encode
from common.messaging.relay import relay
from common.messaging.topology import RETRY_TIERS, StillConsumed, declare_consumer, move_retry_queues
from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.plugin import eventually

from .consuming import POISON, consuming, effects, has_effect, is_ready, parked, publish

SOLD = "shop.item.sold.v1"


def sold(number: int, headers: dict[str, Any] | None = None) -> aio_pika.Message:
    event = Envelope(new_id(), SOLD, "item", 1, utc_now(), json.dumps({"number": number}))
    body, properties = encode(event)
    return aio_pika.Message(
        body,
        headers={**(properties.headers or {}), **(headers or {})},
        message_id=str(event.id),
        content_type="application/json",
    )


async def test_an_event_through_the_default_exchange_is_parked_as_forged(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    """A client that may write there can reach every queue, with any type and in any producer's name."""
    deaths = [{"queue": "shop.inbound.retry.5s", "reason": "expired", "exchange": "shop.retry", "count": 1}]
    async with consuming(settings, database):
        await channel.default_exchange.publish(sold(1), "shop.inbound")
        await channel.default_exchange.publish(sold(2, {"x-death": deaths}), "shop.inbound")
        await publish(channel, 3)
        await eventually(lambda: has_effect(database, "3"))
        rows = await eventually(lambda: _parked(database, 2))
    assert [row.cause for row in rows] == ["forged", "forged"]
    assert await effects(database) == ["3"]


async def test_a_producer_cannot_publish_in_anothers_name(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        mint = await channel.declare_exchange("mint.events", "topic", durable=True)
        await (await channel.get_queue("shop.inbound")).bind(mint, "#")
        await mint.publish(sold(1), SOLD)
        ((_, cause, attempts, _, _),) = await eventually(lambda: parked(database))
    assert (cause, attempts) == ("forged", 0)
    assert await effects(database) == []


@pytest.mark.parametrize("exchange", ["shop.events", "shop.replay"])
async def test_an_event_through_its_producers_exchanges_is_processed(
    settings: ServiceSettings, database: Database, channel: AbstractChannel, exchange: str
) -> None:
    async with consuming(settings, database):
        routing_key = SOLD if exchange == "shop.events" else "shop.inbound"
        await (await channel.get_exchange(exchange)).publish(sold(1), routing_key)
        await eventually(lambda: has_effect(database, "1"))


def of_release_0_1_0(target: str) -> dict[str, Any]:
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": target,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


@pytest.fixture
async def old_queues(channel: AbstractChannel) -> None:
    """As release 0.1.0 declared them."""
    await channel.declare_queue("shop.inbound.parked", durable=True, arguments={"x-queue-type": "quorum"})
    for name, target in (
        ("shop.inbound", "shop.inbound.parked"),
        *((f"shop.inbound.retry.{tier}", "shop.inbound") for tier in RETRY_TIERS),
    ):
        await channel.declare_queue(name, durable=True, arguments=of_release_0_1_0(target))


@pytest.mark.usefixtures("old_queues")
async def test_with_the_queues_of_the_last_release_retries_return_and_nothing_else_gets_in(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        await publish(channel, POISON)
        await channel.default_exchange.publish(sold(1), "shop.inbound")
        rows = await eventually(lambda: _parked(database, 2))
    assert {(row.cause, row.attempts) for row in rows} == {("ValueError: thirteen", 4), ("forged", 0)}


@pytest.mark.usefixtures("old_queues")
async def test_moving_the_queues_of_the_last_release_loses_no_message(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    tier = await channel.get_queue("shop.inbound.retry.10m")
    for number in range(100, 120):
        message = sold(number)
        message.expiration = 600
        await channel.default_exchange.publish(message, tier.name)
    async with broker.connect(settings.amqp_url.get_secret_value(), "test") as connection:
        assert await declare_consumer(connection, "shop", [("shop.events", SOLD)])
        assert await move_retry_queues(connection, "shop") == 20
        assert not await declare_consumer(connection, "shop", [("shop.events", SOLD)])
        assert await move_retry_queues(connection, "shop") == 0
    async with consuming(settings, database):
        async with broker.connect(settings.amqp_url.get_secret_value(), "test") as connection:
            with pytest.raises(StillConsumed):
                await move_retry_queues(connection, "shop")
        await eventually(lambda: _have_effects(database, 20))
        await publish(channel, POISON)
        ((_, cause, attempts, _, _),) = await eventually(lambda: parked(database))
    assert (cause, attempts) == ("ValueError: thirteen", 4)


async def _parked(database: Database, count: int) -> list[Any]:
    rows = await parked(database)
    return rows if len(rows) == count else []


async def _have_effects(database: Database, count: int) -> bool:
    return len(await effects(database)) == count


async def test_a_declaration_that_has_begun_is_completed_at_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "_DECLARE_INTERVAL", 0)
    begun, may_end = asyncio.Event(), asyncio.Event()
    ends: list[str] = []

    async def declare() -> None:
        if not ends:
            ends.append("first")
            return
        begun.set()
        try:
            await may_end.wait()
            ends.append("completed")
        except asyncio.CancelledError:
            ends.append("cancelled")

    with contextlib.suppress(ConnectionError):  # as a session ends whose connection is lost
        async with topology.kept_declared(declare):
            await begun.wait()
            asyncio.get_running_loop().call_soon(may_end.set)
            raise ConnectionError
    assert ends == ["first", "completed"]


async def test_a_consumer_binds_its_queue_again_after_somebody_unbound_it(
    settings: ServiceSettings, database: Database, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "_DECLARE_INTERVAL", 0.2)
    received = REGISTRY.get_sample_value("waybill_consumer_received_total", {"type": SOLD}) or 0
    async with consuming(settings, database):
        queue = await channel.get_queue("shop.inbound")
        await queue.unbind("shop.events", SOLD)

        async def processed_again() -> bool:
            await publish(channel, 1)
            return await has_effect(database, "1")

        await eventually(processed_again)
    counted = REGISTRY.get_sample_value("waybill_consumer_received_total", {"type": SOLD})
    assert counted == received + len(await effects(database))
    assert REGISTRY.get_sample_value("waybill_consumer_bound", {"type": SOLD}) == 1


async def test_a_relay_binds_the_stream_again_after_somebody_unbound_it(
    settings: ServiceSettings, database: Database, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "_DECLARE_INTERVAL", 0.2)
    monkeypatch.setattr(type(settings), "streamed", "shop.item.#")
    stop, health = asyncio.Event(), Health()
    running = asyncio.ensure_future(relay(settings, health, stop))
    try:
        await eventually(lambda: is_ready(health))
        stream = await channel.get_queue("shop.events.log")
        await stream.unbind("shop.events", "shop.item.#")
        events = await channel.get_exchange("shop.events")
        await channel.set_qos(1)
        kept: asyncio.Queue[Any] = asyncio.Queue()
        await stream.consume(kept.put, arguments={"x-stream-offset": "first"})

        async def is_kept() -> bool:
            await events.publish(sold(1), SOLD)
            return not kept.empty()

        await eventually(is_kept)
    finally:
        stop.set()
        await asyncio.wait_for(running, 20)
