"""Events through the real broker: published as producers do, consumed as the `consume` role does."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from aiormq import Channel
from pydantic import SecretStr

from common.db.database import new_id
from common.messaging import broker, topology
from common.messaging.cloudevents import Envelope, Undecodable, encode, exchange_of, producer_of
from common.messaging.consumer import consume
from common.runtime.health import Health
from common.testing.plugin import eventually
from notifier.consumers import handlers
from notifier.settings import Settings

from .delivering import all_sent, delivering
from .mailbox import Mailbox
from .world import World, envelope, holds, order_data


@pytest.fixture
def settings(settings: Settings, amqp_url: str) -> Settings:
    return settings.model_copy(update={"amqp_url": SecretStr(amqp_url), "retry_delays": (0.05, 0.05, 0.05)})


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[Channel]:
    """A producer's channel. Confirmed and mandatory, so that an unroutable event fails the test."""
    async with broker.connect(amqp_url, "test") as connection:
        declaring = await connection.channel()
        for producer in ("auth", "users", "orders"):
            await topology.declare_producer(declaring, producer)
        yield await broker.raw_channel(connection, confirms=True)


@asynccontextmanager
async def consuming(settings: Settings) -> AsyncIterator[None]:
    stop, health = asyncio.Event(), Health()
    task = asyncio.create_task(consume(settings, health, stop, handlers))
    try:
        await eventually(lambda: _ready(health), within=20)
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def _ready(health: Health) -> bool:
    return (await health.ready())[0]


async def publish(channel: Channel, event: Envelope) -> None:
    body, properties = encode(event)
    await channel.basic_publish(
        body,
        exchange=exchange_of(producer_of(event.type)),
        routing_key=event.type,
        properties=properties,
        mandatory=True,
    )


def registered(user_id: UUID, *, version: int = 1, **fields: Any) -> Envelope:
    data: dict[str, Any] = {"user_id": str(user_id), "name": "Ann", "email": f"{user_id}@example.com", "role": "user"}
    return envelope("users.user.registered.v1", version=version, **(data | {"send_welcome": False} | fields))


def ordered(state: str, user_id: UUID, order_id: UUID, *, event_id: UUID | None = None) -> Envelope:
    return envelope(f"orders.order.{state}.v1", event_id=event_id, **order_data(state, user_id, order_id))


async def counted(world: World, table: str, count: int) -> bool:
    [row] = await world.rows(f"SELECT count(*) AS rows FROM {table}")  # noqa: S608 - names of ours
    return bool(row["rows"] == count)


async def test_an_order_is_mailed_from_its_event(
    world: World, settings: Settings, channel: Channel, mailbox: Mailbox
) -> None:
    user_id, order_id = new_id(), new_id()
    async with consuming(settings), delivering(settings):
        await publish(channel, registered(user_id))
        await eventually(lambda: counted(world, "contacts", 1))
        await publish(channel, ordered("placed", user_id, order_id))
        await eventually(lambda: holds(len(mailbox.envelopes) == 1))
        await eventually(lambda: all_sent(world))
    assert str(order_id) in mailbox.to(f"{user_id}@example.com")[0]


async def test_the_notification_after_the_response_is_mailed_once_however_often_its_event_is_delivered(
    world: World, settings: Settings, channel: Channel, mailbox: Mailbox
) -> None:
    user_id, order_id, event_id = new_id(), new_id(), new_id()
    async with consuming(settings), consuming(settings), delivering(settings):
        for _ in range(10):
            await publish(channel, ordered("placed", user_id, order_id, event_id=event_id))
            await publish(channel, registered(user_id, send_welcome=True))
        await eventually(lambda: counted(world, "inbox", 11))
        await eventually(lambda: all_sent(world))
    texts = mailbox.to(f"{user_id}@example.com")
    assert len([text for text in texts if str(order_id) in text]) == 1
    assert len([text for text in texts if "welcome" in text]) == 1, "one account, though ten events announced it"


async def test_two_consumers_of_shuffled_events_lose_and_duplicate_nothing(
    world: World, settings: Settings, channel: Channel, mailbox: Mailbox
) -> None:
    people = {new_id(): new_id() for _ in range(50)}
    events = [registered(user_id, send_welcome=True) for user_id in people]
    for user_id, order_id in people.items():
        events += [ordered(state, user_id, order_id) for state in ("placed", "confirmed", "shipped", "delivered")]
    random.Random(7).shuffle(events)  # noqa: S311
    async with consuming(settings), consuming(settings), delivering(settings), delivering(settings):
        await asyncio.gather(*(publish(channel, event) for event in events))
        await eventually(lambda: counted(world, "inbox", 250), within=30)
        await eventually(lambda: all_sent(world), within=30)
    assert len(mailbox.envelopes) == 250
    by_address = mailbox.texts()
    for user_id, order_id in people.items():
        texts = by_address[f"{user_id}@example.com"]
        assert len(texts) == 5
        assert len([text for text in texts if str(order_id) in text]) == 4


async def test_an_invalid_event_is_parked_and_delays_no_other(
    world: World, settings: Settings, channel: Channel
) -> None:
    user_id = new_id()
    nul = registered(new_id(), name="Ann\x00")
    async with consuming(settings):
        await publish(channel, envelope("orders.order.placed.v1", order_id="none"))
        await publish(channel, nul)
        await publish(channel, registered(user_id))
        await eventually(lambda: counted(world, "contacts", 1))
        await eventually(lambda: counted(world, "parked_messages", 2))
    causes = {row["cause"] for row in await world.rows("SELECT cause FROM parked_messages")}
    assert "a text has NUL or an unpaired surrogate, which cannot be stored" in causes


def test_a_list_of_many_faults_is_read_to_its_first_one() -> None:
    """250,000 of them cost 4 s, during which nothing else was processed."""
    data = order_data("placed", new_id(), new_id(), lines=[{}] * 250_000)
    event = envelope("orders.order.placed.v1", **data)
    with pytest.raises(Undecodable) as raised:
        handlers.decode(event)
    fields = ", ".join(f"lines.0.{field}" for field in ("name", "quantity", "unit_price"))
    assert str(raised.value) == f"data does not fit orders.order.placed.v1: {fields}"


async def test_unknown_fields_of_a_producer_are_ignored(world: World, settings: Settings, channel: Channel) -> None:
    user_id, order_id = new_id(), new_id()
    data = order_data("shipped", user_id, order_id) | {"gift": True}
    async with consuming(settings):
        await publish(channel, envelope("orders.order.shipped.v1", **data))
        await eventually(lambda: counted(world, "notifications", 1))
    assert await world.kinds(user_id) == ["order_shipped"]
