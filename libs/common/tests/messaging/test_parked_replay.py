"""A replay of a parked message and its consumer, in every order of their steps: no order loses or doubles the message.

Afterwards the message has exactly one open row if it failed again, and none if it was processed.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database
from common.messaging import broker, parked
from common.messaging.batch import decode_delivery, process_batch
from common.messaging.event_handlers import EventHandlers, Received
from common.messaging.topology import declare_consumer
from common.settings import ServiceSettings
from common.testing.plugin import eventually

from .consuming import Sold, effects, publish

QUEUE = "shop.inbound"

# The steps of a replay: P publishes (confirmed), E ends its transaction, X dies in it.
# The steps of the consumer: T commits its transaction, which processes or parks the message, A acknowledges, D dies:
# the broker delivers the message again.
ORDERS = {
    "one replay": (["PE"], "TA"),
    "one replay that dies": (["PX"], "TA"),
    "one replay, and the consumer dies before its acknowledgement": (["PE"], "TDTA"),
    "both die": (["PX"], "TDTA"),
    "two replays": (["PE", "PE"], "TATA"),
}


class Refused(BaseModel):
    number: str


class Died(Exception):
    """A process ended in the midst of its work."""


def interleavings(replays: Sequence[str], consumer: str) -> Iterator[list[tuple[int, str]]]:
    """All orders of the steps, each with its actor's number. The consumer cannot process what was not published, and of
    two equal replays the first one publishes first.
    """

    def steps(left: Sequence[str], waiting: int) -> Iterator[list[tuple[int, str]]]:
        if not any(left):
            yield []
        for actor, rest in enumerate(left):
            is_second = rest[:1] == "P" and actor > 0 and left[actor - 1] == rest
            if not rest or is_second or (rest[0] == "T" and not waiting):
                continue
            change = {"P": 1, "A": -1}.get(rest[0], 0)
            remaining = [*left[:actor], rest[1:], *left[actor + 1 :]]
            for following in steps(remaining, waiting + change):
                yield [(actor, rest[0]), *following]

    yield from steps([*replays, consumer], 0)


def test_the_orders_of_one_replay_are_these() -> None:
    orders = {name: ["".join(step for _, step in order) for order in interleavings(*ORDERS[name])] for name in ORDERS}
    assert orders["one replay"] == ["PETA", "PTEA", "PTAE"]
    assert orders["both die"] == ["PXTDTA", "PTXDTA", "PTDXTA", "PTDTXA", "PTDTAX"]
    assert {name: len(found) for name, found in orders.items()} == {
        "one replay": 3,
        "one replay that dies": 3,
        "one replay, and the consumer dies before its acknowledgement": 5,
        "both die": 5,
        "two replays": 84,
    }


class PausingChannel:
    """Publishes, and then waits: between the confirm and the end of the transaction others do their steps."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.published = asyncio.Event()
        self.may_end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def basic_publish(self, *arguments: Any, **options: Any) -> None:
        await self._channel.basic_publish(*arguments, **options)
        self.published.set()
        await self.may_end


class Replay:
    """`parked replay` of the one open message, step by step."""

    def __init__(self, database: Database, channel: Channel) -> None:
        self._database = database
        self._channel = PausingChannel(channel)
        self._task: asyncio.Task[None] | None = None

    async def _run(self) -> None:
        async with self._database.transaction() as session:
            for row in await parked.list_open(session, QUEUE):
                await parked.replay(session, QUEUE, row["id"], self._channel)  # type: ignore[arg-type]

    async def step(self, step: str) -> None:
        if step == "P":
            self._task = asyncio.create_task(self._run())
            published = asyncio.ensure_future(self._channel.published.wait())
            # The replay ends without publishing where the row is closed.
            await asyncio.wait([published, self._task], return_when=asyncio.FIRST_COMPLETED)
            published.cancel()
            return
        assert self._task is not None
        if self._channel.published.is_set() and step == "E":
            self._channel.may_end.set_result(None)
        elif self._channel.published.is_set():
            self._channel.may_end.set_exception(Died())
        with suppress(Died):
            await self._task


class Shop:
    """A consumer whose steps the test takes one by one."""

    def __init__(self, database: Database, connection: AbstractConnection) -> None:
        self.database = database
        self._connection = connection
        self._channel: Channel | None = None
        self._tag: int | None = None
        self._died = False
        self.model: type[BaseModel] = Refused

    def handlers(self) -> EventHandlers:
        handlers = EventHandlers()

        @handlers.on("shop.item.sold.v1", self.model)
        async def sold(session: AsyncSession, event: Received[BaseModel]) -> None:
            await session.execute(text("INSERT INTO effects (event_id, note) VALUES (:id, '')"), {"id": event.id})

        return handlers

    async def step(self, step: str) -> None:
        if self._channel is None:
            self._channel = await broker.raw_channel(self._connection, confirms=False)
        if step == "T":
            message = await (eventually(self._get) if self._died else self._get())
            self._died = False
            if message is None:  # a replay found the row closed, and published nothing
                return
            handlers = self.handlers()
            await process_batch(self.database, QUEUE, handlers, [decode_delivery(message, QUEUE, handlers)])
        elif self._tag and step == "A":
            await self._channel.basic_ack(self._tag)
            self._tag = None
        elif self._tag:
            await self._channel.close()
            self._channel, self._tag, self._died = None, None, True

    async def _get(self) -> DeliveredMessage | None:
        assert self._channel is not None
        message = await self._channel.basic_get(QUEUE)
        self._tag = message.delivery.delivery_tag if isinstance(message.delivery, Basic.GetOk) else None
        return message if self._tag else None

    async def open_rows(self) -> int:
        async with self.database.transaction() as session:
            return len(await parked.list_open(session, QUEUE))


@pytest.mark.parametrize("outcome", ["fails again", "is processed"])
@pytest.mark.parametrize("name", ORDERS)
async def test_no_order_of_a_replay_and_its_consumer_loses_or_doubles_a_message(
    name: str, outcome: str, settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    wrong = []
    async with broker.connect(settings.amqp_url.get_secret_value(), "steps") as connection:
        shop = Shop(database, connection)
        await declare_consumer(connection, "shop", shop.handlers().bindings)
        sender = await broker.raw_channel(connection, confirms=True)
        for order in interleavings(*ORDERS[name]):
            shop.model = Refused
            await publish(channel, 1)
            await shop.step("T")
            await shop.step("A")
            assert await shop.open_rows() == 1
            shop.model = Refused if outcome == "fails again" else Sold
            actors: list[Replay | Shop] = [*(Replay(database, sender) for _ in ORDERS[name][0]), shop]
            for actor, step in order:
                await actors[actor].step(step)
            seen = (await shop.open_rows(), len(await effects(database)))
            if seen != ((1, 0) if outcome == "fails again" else (0, 1)):
                wrong.append((" ".join(f"{step}{actor}" for actor, step in order), seen))
            await sender.queue_purge(QUEUE)
            async with database.transaction() as session:
                await session.execute(text("TRUNCATE parked_messages, inbox, effects"))
    assert wrong == [], f"{len(wrong)} orders, with their open rows and effects"


async def test_a_message_whose_parking_was_not_acknowledged_and_that_is_then_processed_is_not_left_in_the_list(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with broker.connect(settings.amqp_url.get_secret_value(), "steps") as connection:
        shop = Shop(database, connection)
        await declare_consumer(connection, "shop", shop.handlers().bindings)
        await publish(channel, 1)
        await shop.step("T")
        await shop.step("D")
        assert await shop.open_rows() == 1
        shop.model = Sold  # a release that can read it
        await shop.step("T")
        await shop.step("A")
    assert (await shop.open_rows(), len(await effects(database))) == (0, 1)
