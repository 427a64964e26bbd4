"""Publishing past the driver's own method: confirms, refusals and the end of the channel are as with it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelInvalidStateError, DeliveryError, PublishError
from pamqp.commands import Basic

from common.db.database import new_id
from common.messaging import broker
from common.messaging.confirmed_publish import ConfirmedPublish


@pytest.fixture
async def publisher(amqp_url: str) -> AsyncIterator[ConfirmedPublish]:
    async with broker.connect(amqp_url, "test") as amqp:
        yield ConfirmedPublish(await broker.raw_channel(amqp, confirms=True))


async def publish(publisher: ConfirmedPublish, queue: str, body: bytes = b"{}") -> None:
    properties = Basic.Properties(message_id=str(new_id()), delivery_mode=2)
    await publisher.publish(body, exchange="", routing_key=queue, properties=properties)


async def test_confirmed_messages_are_in_the_queue_in_order_whatever_their_size(
    publisher: ConfirmedPublish, channel: AbstractChannel
) -> None:
    queue = await channel.declare_queue("all", durable=True)
    bodies = [b"", b"1", b"x" * 1_000_000, b"2" * 131_064]
    await asyncio.gather(*(publish(publisher, "all", body) for body in bodies))
    assert [(await queue.get(no_ack=True)).body for _ in bodies] == bodies


async def test_messages_that_are_sent_together_are_written_together(
    publisher: ConfirmedPublish, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await channel.declare_queue("all", durable=True)
    written: list[Any] = []
    put = publisher.channel.write_queue.put

    async def put_and_count(frame: Any) -> None:
        written.append(frame)
        await put(frame)

    monkeypatch.setattr(publisher.channel.write_queue, "put", put_and_count)
    await asyncio.gather(*(publish(publisher, "all") for _ in range(100)))
    assert len(written) == 1


async def test_a_refused_message_and_one_without_a_queue_fail_alone(
    publisher: ConfirmedPublish, channel: AbstractChannel
) -> None:
    await channel.declare_queue("all", durable=True)
    await channel.declare_queue("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    outcomes = await asyncio.gather(
        *(publish(publisher, queue) for queue in ("all", "full", "absent", "all")), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), DeliveryError, PublishError, type(None)]


async def test_a_message_that_cannot_be_encoded_fails_and_the_next_one_is_confirmed(
    publisher: ConfirmedPublish, channel: AbstractChannel
) -> None:
    await channel.declare_queue("all", durable=True)
    with pytest.raises(TypeError, match="255"):
        await publish(publisher, "x" * 300)
    await publish(publisher, "all")


async def test_the_end_of_the_channel_ends_what_is_not_confirmed_and_what_follows(publisher: ConfirmedPublish) -> None:
    properties = Basic.Properties(message_id="1")
    with pytest.raises(broker.BROKER_ERRORS):  # the broker closes a channel that names no exchange
        await publisher.publish(b"", exchange="absent", routing_key="all", properties=properties)
    with pytest.raises(ChannelInvalidStateError):
        await publish(publisher, "all")
