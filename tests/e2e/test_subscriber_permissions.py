"""The permissions of an external subscriber at the broker: it binds and reads its queues, and nothing else."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import aiormq
import httpx
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from pamqp.common import FieldTable

from common.testing.plugin import eventually
from waybill_dev.servers.rabbitmq_definitions import DELIVERY_LIMIT
from waybill_dev.testing import StackUnderTest

from .conftest import Team

Attempt = Callable[[AbstractChannel, str], Awaitable[Any]]


async def bind_own_queue(channel: AbstractChannel, team: str) -> None:
    queue = await channel.get_queue(f"{team}.inbound", ensure=False)
    await queue.bind("orders.events", "#")
    await queue.bind("orders.replay", queue.name)


def bind(exchange: str) -> Attempt:
    async def attempt(channel: AbstractChannel, team: str) -> None:
        await (await channel.get_queue(f"{team}.inbound", ensure=False)).bind(exchange, "#")

    return attempt


def consume_from(queue: str) -> Attempt:
    async def attempt(channel: AbstractChannel, _team: str) -> None:
        await (await channel.get_queue(queue, ensure=False)).get(fail=False)

    return attempt


def declare(queue: str) -> Attempt:
    return lambda channel, team: channel.declare_queue(queue.format(team=team))


async def declare_a_queue_that_refuses(channel: AbstractChannel, team: str) -> None:
    """It would make the broker refuse every order event, and the relay repeat it, for everybody."""
    full = await channel.declare_queue(
        f"{team}.full", durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    await full.bind("orders.events", "#")


async def redeclare_its_own(channel: AbstractChannel, team: str) -> None:
    arguments: FieldTable = {"x-queue-type": "quorum", "x-dead-letter-exchange": f"{team}.dead"}
    await channel.declare_queue(f"{team}.inbound", durable=True, arguments=arguments)


def delete(queue: str) -> Attempt:
    return lambda channel, team: channel.queue_delete(queue.format(team=team))


async def bind_exchange_to_exchange(channel: AbstractChannel, team: str) -> None:
    await (await channel.get_exchange(f"{team}.dead", ensure=False)).bind("orders.events", "#")


async def bind_its_parked_queue(channel: AbstractChannel, team: str) -> None:
    await (await channel.get_queue(f"{team}.parked", ensure=False)).bind("orders.events", "#")


async def publish_to_its_parked_queue(channel: AbstractChannel, team: str) -> None:
    await (await channel.get_exchange(f"{team}.dead", ensure=False)).publish(aio_pika.Message(b"{}"), "")


async def dead_letter_to_notifier(channel: AbstractChannel, team: str) -> None:
    await channel.declare_queue(
        f"{team}.inbound2",
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "notifier.inbound"},
    )


async def publish_as_orders(channel: AbstractChannel, _team: str) -> None:
    exchange = await channel.get_exchange("orders.events", ensure=False)
    await exchange.publish(aio_pika.Message(b"{}"), "orders.order.placed.v1")


async def publish_to_notifier(channel: AbstractChannel, _team: str) -> None:
    await channel.default_exchange.publish(aio_pika.Message(b"{}"), "notifier.inbound")


async def unbind_the_stream(channel: AbstractChannel, _team: str) -> None:
    await (await channel.get_queue("orders.events.log", ensure=False)).unbind("orders.events", "orders.order.#")


REFUSED: list[Attempt] = [
    bind("users.events"),
    bind("auth.events"),
    bind("orders.events.unrouted"),
    consume_from("notifier.inbound"),
    consume_from("orders.unrouted"),
    declare("other.inbound"),
    declare("x{team}.inbound"),
    lambda channel, _: channel.declare_queue(exclusive=True),
    lambda channel, team: channel.declare_exchange(f"{team}.retry"),
    declare_a_queue_that_refuses,
    redeclare_its_own,
    delete("{team}.inbound"),
    delete("{team}.parked"),
    bind_exchange_to_exchange,
    bind_its_parked_queue,
    publish_to_its_parked_queue,
    dead_letter_to_notifier,
    publish_as_orders,
    publish_to_notifier,
    unbind_the_stream,
    lambda channel, _: channel.queue_delete("orders.events.log"),
    lambda channel, _: channel.queue_delete("notifier.inbound"),
    lambda channel, _: channel.exchange_delete("orders.events"),
]


async def test_a_subscriber_may_read_orders_events_and_nothing_else(team: Team, customer: Any) -> None:
    order = (await customer.order()).json()
    async with await aio_pika.connect(team.amqp_url) as connection:
        await bind_own_queue(await connection.channel(), team.name)
        await asyncio.wait_for(until_in_history(await connection.channel(), order["id"]), 20)
    for attempt in REFUSED:
        async with await aio_pika.connect(team.amqp_url) as connection:
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await attempt(await connection.channel(), team.name)


async def test_parked_messages_stay_however_often_a_subscriber_reads_them(team: Team) -> None:
    async with await aio_pika.connect(team.administrator) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"{}"), f"{team.name}.inbound")
    async with await aio_pika.connect(team.amqp_url) as connection:
        channel = await connection.channel()
        inbound = await channel.get_queue(f"{team.name}.inbound", ensure=False)
        await (await inbound.get(timeout=10)).reject(requeue=False)
        parked = await channel.get_queue(f"{team.name}.parked", ensure=False)
        for _ in range(2 * DELIVERY_LIMIT):
            message = await eventually(lambda: parked.get(fail=False))
            assert message is not None
            await message.nack(requeue=True)


async def test_a_subscriber_of_the_last_release_keeps_its_queues_and_loses_the_right_to_create_others(
    stack: StackUnderTest, team: Team
) -> None:
    broker = stack.addresses["broker"]
    administrator = urlsplit(broker["amqp_url"])
    own = rf"^{team.name}\."
    of_0_1_0 = {"configure": own, "write": own, "read": rf"^({team.name}\..*|orders\.events)$"}
    async with httpx.AsyncClient(auth=(administrator.username or "", administrator.password or "")) as api:
        granted = await api.put(f"{broker['management_url']}/api/permissions/%2F/{team.name}", json=of_0_1_0)
        granted.raise_for_status()
    async with await aio_pika.connect(team.amqp_url) as connection:
        channel = await connection.channel()
        await redeclare_its_own(channel, team.name)
        await channel.declare_queue(f"{team.name}.full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    async with await aio_pika.connect(team.administrator) as connection:
        await (await connection.channel()).default_exchange.publish(aio_pika.Message(b"1"), f"{team.name}.inbound")

    assert stack.dev("subscriber", team.name).strip() == team.amqp_url

    async with await aio_pika.connect(team.amqp_url) as connection:
        inbound = await (await connection.channel()).get_queue(f"{team.name}.inbound", ensure=False)
        await inbound.bind("orders.replay", inbound.name)
        message = await inbound.get(timeout=10)
        assert message.body == b"1"
        await message.ack()
    for attempt in (redeclare_its_own, declare_a_queue_that_refuses):
        async with await aio_pika.connect(team.amqp_url) as connection:
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await attempt(await connection.channel(), team.name)
    async with await aio_pika.connect(team.administrator) as connection:
        await (await connection.channel()).queue_delete(f"{team.name}.full")


async def until_in_history(channel: AbstractChannel, order_id: str) -> None:
    found = asyncio.Event()

    async def read(message: AbstractIncomingMessage) -> None:
        if order_id.encode() in message.body:
            found.set()
        await message.ack()

    await channel.set_qos(100)
    stream = await channel.get_queue("orders.events.log", ensure=False)
    await stream.consume(read, arguments={"x-stream-offset": "first"})
    await found.wait()


@pytest.mark.parametrize("name", ["orders", "waybill-admin", "Team", "a.b", "x"])
def test_an_invalid_name_of_a_subscriber_is_refused(stack: StackUnderTest, name: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        stack.dev("subscriber", name)
    assert "lower-case letters" in refusal.value.stderr
