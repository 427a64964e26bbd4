"""The exchanges and queues that each service declares for itself, and where a message may have come from.

Only a producer can write to its own exchanges, so the exchange of a delivery says who sent it; its type and headers do
not. Nothing is sent through the default exchange, which reaches every queue.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import Channel
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp.commands import Basic
from pamqp.common import FieldTable

from common.messaging.broker import prepare_for_resending, raw_channel
from common.messaging.cloudevents import exchange_of, producer_of, stream_of
from common.runtime.background import Work, background, every

log = structlog.get_logger(__name__)

RETRY_TIERS: Final = ("5s", "1m", "10m")
"""Names of the retry queues. The delays are a setting and may differ from the names."""
_STREAM: Final[FieldTable] = {
    "x-queue-type": "stream",
    # Retention (a policy) drops whole segments. Their size cannot be changed later; with the default of 500 MB a quiet
    # service's events would stay for years.
    "x-stream-max-segment-size-bytes": 20_000_000,
}
_BY_KEY: Final[FieldTable] = {"hash-header": "cloudEvents_partitionkey"}
_DECLARE_INTERVAL: Final = 60.0
_COMPLETION: Final = 10.0


class StillConsumed(Exception):
    """A process consumes from the queue."""


def replay_exchange(producer: str) -> str:
    """Replays go through it to the queues that their owners bound there under the queue's own name."""
    return f"{producer}.replay"


def own_exchange(consumer: str) -> str:
    """The consumer's own: to its retry queues, back to its inbound queue, and to its parked queue."""
    return f"{consumer}.retry"


def is_authentic(exchange: str | None, event_type: str, consumer: str) -> bool:
    """Whether an event of this type may arrive through `exchange`: its producer's, or the consumer's own."""
    producer = producer_of(event_type)
    return exchange in {exchange_of(producer), replay_exchange(producer), own_exchange(consumer)}


@asynccontextmanager
async def kept_declared(declare: Work, *, interval: float | None = None) -> AsyncIterator[None]:
    """Calls `declare` first, and every minute during the block, so that a removed binding is restored.

    `interval`, in seconds, replaces the minute.

    At the end of the block a call that has begun is completed: an AMQP method that is cancelled closes its channel, and
    that can wait for the broker in vain.
    """
    await declare()

    async def whole() -> None:
        call = asyncio.ensure_future(declare())
        try:
            await asyncio.shield(call)
        finally:
            await asyncio.wait({call}, timeout=_COMPLETION)

    async def again() -> None:
        await asyncio.sleep(interval or _DECLARE_INTERVAL)
        await every(interval or _DECLARE_INTERVAL, whole)

    async with background(again):
        yield


async def declare_producer(channel: AbstractChannel, service: str, stream: str | None = None) -> None:
    """Declares the service's exchanges, and an alternate exchange whose queue keeps events without a binding.

    `stream` is the routing pattern of the events that are also kept in a stream, for readers with only an AMQP client.
    """
    unrouted = await channel.declare_exchange(f"{service}.events.unrouted", ExchangeType.FANOUT, durable=True)
    queue = await channel.declare_queue(f"{service}.unrouted", durable=True, arguments={"x-queue-type": "quorum"})
    await queue.bind(unrouted)
    exchange = await channel.declare_exchange(
        exchange_of(service),
        ExchangeType.TOPIC,
        durable=True,
        arguments={"alternate-exchange": f"{service}.events.unrouted"},
    )
    replays = await channel.declare_exchange(replay_exchange(service), ExchangeType.DIRECT, durable=True)
    if stream is not None:
        history = await channel.declare_queue(stream_of(service), durable=True, arguments=_STREAM)
        await history.bind(exchange, stream)
        await history.bind(replays, history.name)


def inbound_queues(service: str, partitions: int) -> list[str]:
    """The queues that the consumer receives its events from, by number."""
    inbound = f"{service}.inbound"
    return [inbound] if partitions == 1 else [f"{inbound}.{number}" for number in range(partitions)]


def partition_exchange(service: str) -> str:
    """The exchange that shares the consumer's events between several queues, by partition key."""
    return f"{service}.inbound.by_key"


async def declare_consumer(
    connection: AbstractConnection, service: str, bindings: Collection[tuple[str, str]], partitions: int = 1
) -> bool:
    """Declares the consumer's queues, and binds the inbound ones to (exchange, routing key) pairs.

    Returns whether the retry queues still have the arguments of release 0.1.0, which return messages through the
    default exchange (see `move_retry_queues`).
    """
    has_old_queues = await declare_queues(connection, service)
    await bind_consumer(connection, service, bindings, partitions)
    return has_old_queues


async def declare_queues(connection: AbstractConnection, service: str) -> bool:
    """Declares the queues that a consumer has in any case. Returns what `declare_consumer` does.

    Arguments hold what must not change: type, dead-letter target, and that no dead letter is dropped. Limits are
    policies. The parked queue is declared first: a dead letter without a target would be lost.
    """
    channel = await raw_channel(connection, confirms=False)
    await channel.exchange_declare(own_exchange(service), exchange_type="direct", durable=True)
    await channel.close()
    is_old = {}
    for name, target in _queues(service):
        is_old[name] = await _declare(connection, name, _arguments(service, target))
    channel = await raw_channel(connection, confirms=False)
    for name in is_old.keys() - {f"{service}.inbound"}:
        await channel.queue_bind(name, own_exchange(service), name)
    await channel.close()
    return any(is_old[f"{service}.inbound.retry.{tier}"] for tier in RETRY_TIERS)


async def bind_consumer(
    connection: AbstractConnection, service: str, bindings: Collection[tuple[str, str]], partitions: int = 1
) -> None:
    """Binds the inbound queue, or several that share the events by partition key, after declaring these.

    Retries and replays are sent to the routing key `SERVICE.inbound` in both cases, so that they reach the queue that
    their partition key belongs to now.
    """
    inbound = f"{service}.inbound"
    channel = await raw_channel(connection, confirms=False)
    if partitions > 1:
        await _declare_partitions(channel, service, partitions)
    for source, routing_key in [(own_exchange(service), inbound), *bindings]:
        await _bind(channel, service, partitions, source, routing_key)
    await channel.close()
    for exchange in replay_exchanges(bindings):
        channel = await raw_channel(connection, confirms=False)  # of its own: a refusal closes it
        try:
            await _bind(channel, service, partitions, exchange, inbound)
            await channel.close()
        except ChannelNotFoundEntity:
            log.info("no replays yet, the producer has not declared its exchange", exchange=exchange)


async def _declare_partitions(channel: Channel, service: str, partitions: int) -> None:
    single: FieldTable = {"x-single-active-consumer": True, **_arguments(service, f"{service}.inbound.parked")}
    exchange, queues = partition_exchange(service), inbound_queues(service, partitions)
    await channel.exchange_declare(exchange, exchange_type="x-consistent-hash", durable=True, arguments=_BY_KEY)
    for queue in queues:
        await channel.queue_declare(queue, durable=True, arguments=single)
    for queue in sorted(queues):
        # In the order of the names, in which a broker that starts binds them again: the order decides which keys a
        # queue gets.
        await channel.queue_bind(queue, exchange, "1")


async def _bind(channel: Channel, service: str, partitions: int, source: str, routing_key: str) -> None:
    if partitions == 1:
        await channel.queue_bind(f"{service}.inbound", source, routing_key)
    else:
        await channel.exchange_bind(partition_exchange(service), source, routing_key)


def replay_exchanges(bindings: Collection[tuple[str, str]]) -> list[str]:
    return sorted({replay_exchange(source.removesuffix(".events")) for source, _ in bindings})


async def move_retry_queues(connection: AbstractConnection, service: str) -> int:
    """Recreates retry queues that have the arguments of release 0.1.0. Returns how many messages it moved.

    Waiting messages are sent to the inbound queue, each confirmed before it leaves its old queue.

    Raises `StillConsumed` while a process consumes: it could write to a queue that is being deleted.
    """
    inbound, moved = f"{service}.inbound", 0
    channel = await raw_channel(connection, confirms=True)
    if (await channel.queue_declare(inbound, passive=True)).consumer_count:
        raise StillConsumed(inbound)
    for tier in RETRY_TIERS:
        name = f"{inbound}.retry.{tier}"
        if await _declare(connection, name, _arguments(service, inbound)):
            moved += await _drain(channel, name, own_exchange(service), inbound)
            await channel.queue_delete(name)
            await _declare(connection, name, _arguments(service, inbound))
            await channel.queue_bind(name, own_exchange(service), name)
    await channel.close()
    return moved


async def _drain(channel: Channel, queue: str, exchange: str, routing_key: str) -> int:
    count = 0
    while isinstance((message := await channel.basic_get(queue)).delivery, Basic.GetOk):
        properties = message.header.properties
        properties.expiration = None
        prepare_for_resending(properties, {})
        await channel.basic_publish(
            message.body, exchange=exchange, routing_key=routing_key, properties=properties, mandatory=True
        )
        await channel.basic_ack(message.delivery.delivery_tag or 0)
        count += 1
    return count


def _queues(service: str) -> list[tuple[str, str | None]]:
    """Each queue with the queue that its dead letters go to."""
    inbound, parked = f"{service}.inbound", f"{service}.inbound.parked"
    return [(parked, None), (inbound, parked), *((f"{inbound}.retry.{tier}", inbound) for tier in RETRY_TIERS)]


def _arguments(service: str, dead_letters_to: str | None) -> FieldTable:
    if dead_letters_to is None:
        return {"x-queue-type": "quorum"}
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": own_exchange(service),
        "x-dead-letter-routing-key": dead_letters_to,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


async def _declare(connection: AbstractConnection, name: str, arguments: FieldTable) -> bool:
    """Returns whether the queue existed with other arguments, which it keeps."""
    channel = await connection.channel()  # of its own: a refusal closes it
    try:
        await channel.declare_queue(name, durable=True, arguments=arguments)
    except ChannelPreconditionFailed:
        return True
    await channel.close()
    return False
