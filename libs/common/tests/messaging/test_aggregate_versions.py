"""A gap in an aggregate's versions: later events wait for it for a bounded time, then it is passed and counted."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import pytest
from aiormq import Channel
from prometheus_client import REGISTRY
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database, new_id, utc_now
from common.messaging import broker, topology
from common.messaging.cloudevents import Envelope, encode
from common.messaging.consumer import Consumer
from common.messaging.event_handlers import EventHandlers, Received
from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.plugin import eventually


class Sold(BaseModel):
    number: int


class Shop:
    """A consumer that keeps the order of items. Its handler fails `faults[version]` times before it succeeds."""

    def __init__(self, settings: ServiceSettings, database: Database, channel: Channel) -> None:
        self.faults: dict[int, int] = {}
        self._settings = settings
        self._database = database
        self._channel = channel

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        handlers, stop, health = EventHandlers(in_order=["shop.item"]), asyncio.Event(), Health()

        @handlers.on("shop.item.sold.v1", Sold)
        async def sold(session: AsyncSession, event: Received[Sold]) -> None:
            if self.faults.get(event.version, 0) > 0:
                self.faults[event.version] -= 1
                raise ValueError("not yet")
            await session.execute(text("INSERT INTO effects (note) VALUES (:note)"), {"note": str(event.version)})

        async def ready() -> bool:
            return (await health.ready())[0]

        task = asyncio.create_task(Consumer(self._settings, self._database, handlers, health).run(stop))
        try:
            await eventually(ready)
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, 20)

    async def publish(
        self,
        version: int,
        verb: str = "sold",
        data: dict[str, Any] | None = None,
        routing_key: str | None = None,
        subject: str = "item",
    ) -> None:
        content = json.dumps(data or {"number": 1})
        event = Envelope(new_id(), f"shop.item.{verb}.v1", subject, version, utc_now(), content)
        body, properties = encode(event)
        await self._channel.basic_publish(
            body,
            exchange="shop.events",
            routing_key=routing_key or event.type,
            properties=properties,
            mandatory=True,
        )

    async def until(self, *versions: int) -> None:
        async def reached() -> bool:
            assert await self.effects() == list(versions)
            return True

        await eventually(reached, within=20)

    async def effects(self) -> list[int]:
        async with self._database.transaction() as session:
            notes = await session.scalars(text("SELECT note FROM effects ORDER BY position"))
            return [int(note) for note in notes]

    async def let_wait_an_hour(self, version: int) -> None:
        async with self._database.transaction() as session:
            older = "UPDATE deferred_messages SET deferred_at = now() - interval '1 hour' WHERE version = :version"
            await session.execute(text(older), {"version": version})

    async def parked(self) -> list[str]:
        async with self._database.transaction() as session:
            return list(await session.scalars(text("SELECT cause FROM parked_messages")))


@pytest.fixture
async def shop(settings: ServiceSettings, database: Database, amqp_url: str) -> AsyncIterator[Shop]:
    async with await aio_pika.connect(amqp_url) as connection:
        await topology.declare_producer(await connection.channel(), "shop")
        yield Shop(settings, database, await broker.raw_channel(connection, confirms=True))


@pytest.fixture
def deferred() -> Any:
    """Returns how many deferrals there were since the test started."""
    before = _deferrals()
    return lambda: _deferrals() - before


def _deferrals() -> float:
    return REGISTRY.get_sample_value("waybill_consumer_messages_total", {"outcome": "deferred"}) or 0


async def equals(found: float, expected: float) -> bool:
    return found == expected


@pytest.mark.parametrize("faults", [1, 2, 3])
async def test_later_events_wait_for_a_failing_one_through_its_retries(shop: Shop, faults: int) -> None:
    shop.faults = {1: faults}
    async with shop.open():
        for version in (1, 2, 3):
            await shop.publish(version)
        await shop.until(1, 2, 3)


async def test_a_gap_that_no_event_fills_is_passed_after_the_delays_and_counted(shop: Shop) -> None:
    before = REGISTRY.get_sample_value("waybill_consumer_gaps_total") or 0
    async with shop.open():
        await shop.publish(1)
        await shop.publish(3)
        await shop.until(1, 3)
        assert (REGISTRY.get_sample_value("waybill_consumer_gaps_total") or 0) == before + 1
        await shop.publish(4)
        await shop.until(1, 3, 4)
        # A late event is processed, too; what an old version means is up to its handler.
        await shop.publish(2)
        await shop.until(1, 3, 4, 2)


async def test_after_a_gap_those_that_waited_follow_in_order(shop: Shop, deferred: Any) -> None:
    async with shop.open():
        await shop.publish(1)
        await shop.publish(4)
        await shop.publish(3)
        await eventually(lambda: equals(deferred(), 2))
        await shop.let_wait_an_hour(4)
        await shop.until(1, 3, 4)


async def test_a_consumer_that_starts_late_does_not_wait_for_earlier_versions(shop: Shop, deferred: Any) -> None:
    async with shop.open():
        await shop.publish(5)
        await shop.publish(6)
        await shop.until(5, 6)
    assert deferred() == 0


async def test_an_event_without_a_handler_leaves_no_gap(shop: Shop, deferred: Any) -> None:
    async with shop.open():
        await shop.publish(1)
        await shop.publish(2, "renamed")
        await shop.publish(3)
        await shop.until(1, 3)
    assert deferred() == 0


class Garbled(str):
    """A routing key that is not UTF-8, which no driver would send."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return b"shop.item.\xff"


async def test_a_routing_key_that_is_not_utf_8_does_not_end_the_connection(shop: Shop) -> None:
    async with shop.open():
        await shop.publish(1, routing_key=Garbled("shop.item.?"))
        await shop.publish(2)
        await shop.until(1, 2)


@pytest.mark.parametrize("subject", ["it\0em", "".join(map(str, range(5000)))], ids=["no text", "no key"])
async def test_an_event_with_an_unusable_subject_is_parked_at_once_and_the_consumer_continues(
    shop: Shop, subject: str
) -> None:
    async with shop.open():
        await shop.publish(1, subject=subject)
        await shop.publish(2)
        await shop.until(2)
        await eventually(shop.parked)
    assert await shop.parked() == ["attribute subject is not a text of at most 500 characters"]


async def test_an_event_that_is_parked_at_once_delays_no_later_event(shop: Shop, deferred: Any) -> None:
    async with shop.open():
        await shop.publish(1)
        await shop.publish(2, data={"number": "none"})
        await shop.publish(3)
        await shop.until(1, 3)
    assert await shop.parked() == ["data does not fit shop.item.sold.v1: number"]
    assert deferred() == 0


async def test_an_event_after_one_that_was_parked_is_processed(shop: Shop) -> None:
    shop.faults = {1: 99}
    async with shop.open():
        await shop.publish(1)
        await shop.publish(2)
        await shop.until(2)
        await eventually(shop.parked)
    assert await shop.parked() == ["ValueError: not yet"]
