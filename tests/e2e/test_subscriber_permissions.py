"""The permissions of an external subscriber at the broker: read orders' events and their stream, and nothing else."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import aio_pika
import aiormq
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from common.testing.plugin import eventually
from waybill_dev.servers.rabbitmq_definitions import DELIVERY_LIMIT
from waybill_dev.testing import StackUnderTest

from .conftest import Team

Attempt = Callable[[AbstractChannel, str], Awaitable[Any]]


async def bind_own_queue(channel: AbstractChannel, team: str) -> None:
    queue = await channel.declare_queue(f"{team}.inbound", durable=True, arguments={"x-queue-type": "quorum"})
    await queue.bind("orders.events", "#")


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
    async with await aio_pika.connect(team.amqp_url) as connection:
        channel = await connection.channel()
        dead = await channel.declare_exchange(f"{team.name}.dead", "fanout", durable=True)
        parked = await channel.declare_queue(f"{team.name}.parked", durable=True, arguments={"x-queue-type": "quorum"})
        await parked.bind(dead)
        await dead.publish(aio_pika.Message(b"{}"), "")
        for _ in range(2 * DELIVERY_LIMIT):
            message = await eventually(lambda: parked.get(fail=False))
            assert message is not None
            await message.nack(requeue=True)


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
