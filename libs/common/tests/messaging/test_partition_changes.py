"""A change of the number of queues that is cut off before any of its steps, with events at each step."""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import Channel
from aiormq.abc import DeliveredMessage

from common.db.database import new_id, utc_now
from common.messaging import broker, partitions, receiver, topology
from common.messaging.cloudevents import Envelope, encode
from common.messaging.deliveries import Deliveries
from common.messaging.receiver import Receiver
from common.messaging.topology import declare_queues
from common.settings import ServiceSettings
from common.testing.plugin import eventually

SOLD: Final = "shop.item.sold.v1"
SUBJECTS: Final = [f"item-{number}" for number in range(12)]


class CutOff(Exception):
    pass


class Shop:
    """Publishes the next version of each item, and remembers those that a receiver gets for the first time."""

    def __init__(self, amqp_url: str, channel: Channel) -> None:
        self._amqp_url = amqp_url
        self._channel = channel
        self.version = 0
        self.seen: defaultdict[str, list[int]] = defaultdict(list)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: ServiceSettings) -> AsyncIterator["Shop"]:
        amqp_url = settings.amqp_url.get_secret_value()
        async with broker.connect(amqp_url, "publisher") as connection:
            await declare_queues(connection, "shop")
            yield cls(amqp_url, await broker.raw_channel(connection, confirms=True))

    async def receive(self, number: int) -> None:
        """A process attaches, and ends when all events were received."""
        stop, lost = asyncio.Event(), asyncio.Event()
        async with broker.connect(self._amqp_url, "receiver") as connection:
            attached = Receiver(
                connection, "shop", [("shop.events", SOLD)], count=number, process=self._process, lost=lost
            )
            while not attached.is_attached:
                await attached.attach(_ready, stop)
            receiving = asyncio.ensure_future(attached.receive(stop))
            await eventually(self._has_all, within=30)
            stop.set()
            await receiving

    async def publish(self) -> None:
        self.version += 1
        await asyncio.gather(*(self._publish(subject) for subject in SUBJECTS))

    async def _publish(self, subject: str) -> None:
        event = Envelope(new_id(), SOLD, subject, self.version, utc_now(), json.dumps({"number": 1}))
        body, properties = encode(event)
        await self._channel.basic_publish(
            body, exchange="shop.events", routing_key=SOLD, properties=properties, mandatory=True
        )

    async def _has_all(self) -> bool:
        return all(len(self.seen[subject]) >= self.version for subject in SUBJECTS)

    async def _process(self, batch: Sequence[DeliveredMessage], deliveries: Deliveries) -> None:
        for message in batch:
            headers: Any = message.header.properties.headers
            versions = self.seen[headers["cloudEvents_subject"]]
            if headers["cloudEvents_aggregateversion"] not in versions:  # as the inbox does
                versions.append(headers["cloudEvents_aggregateversion"])
        await deliveries.acknowledge(batch)


async def _ready() -> bool:
    return True


class Steps:
    """Publishes before each call to the broker that changes or reads queues, and cuts off one of these calls."""

    def __init__(self, shop: Shop, patch: pytest.MonkeyPatch) -> None:
        self._shop = shop
        self.left = 0
        """Calls until the one that is cut off, or 0."""
        for module in (partitions, topology):
            patch.setattr(module, "raw_channel", self._channel)

    async def _channel(self, connection: AbstractConnection, *, confirms: bool) -> Any:
        return _Channel(self, await broker.raw_channel(connection, confirms=confirms))

    async def next(self) -> None:
        if self.left:
            await self._shop.publish()
            self.left -= 1
            if not self.left:
                raise CutOff


class _Channel:
    def __init__(self, steps: Steps, channel: Channel) -> None:
        self._steps, self._channel = steps, channel

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def counted(*arguments: Any, **options: Any) -> Any:
            await self._steps.next()
            return await getattr(self._channel, name)(*arguments, **options)

        return counted


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 2)])
async def test_a_change_that_is_cut_off_anywhere_loses_and_misorders_nothing(
    settings: ServiceSettings, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch, old: int, new: int
) -> None:
    """The next process has the new number, the old one, or another. `WAYBILL_EVERY_STEP` leaves out no step."""
    monkeypatch.setattr(receiver, "_SETTLING", 0.05)
    monkeypatch.setattr(receiver, "_PAUSE", 0.1)
    async with Shop.open(settings) as shop:
        steps = Steps(shop, monkeypatch)
        for step in count(1, 1 if os.environ.get("WAYBILL_EVERY_STEP") else 9):
            await shop.receive(old)
            await shop.publish()
            steps.left = step
            try:
                await shop.receive(new)
            except CutOff:
                await shop.publish()
                await shop.receive((new, old, 4)[step % 3])
            else:
                break
            finally:
                steps.left = 0
        await shop.receive(1)
    assert step > 18
    assert dict(shop.seen) == {subject: list(range(1, shop.version + 1)) for subject in SUBJECTS}
