"""RabbitMQ: connections, and the topology that each service declares for itself.

Plain connections, not aio-pika's robust ones: a role that loses its connection starts its session anew from one loop,
so that nothing is resumed half (a robust connection redeclares on its own, and one mismatch loops all its channels).
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

import aio_pika
import aiormq
import structlog
from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractConnection
from pamqp.commands import Basic
from pamqp.common import FieldTable

from common.messaging.cloudevents import exchange_of, stream_of
from common.runtime.background import first_of

log = structlog.get_logger(__name__)

BROKER_ERRORS: Final = (
    aiormq.exceptions.AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,  # a plain RuntimeError: what is asked of a channel that is closed
    OSError,
    TimeoutError,
    asyncio.InvalidStateError,
)
"""What a broken connection, channel or broker raises."""

RETRY_TIERS: Final = ("5s", "1m", "10m")
"""Labels of the retry queues; the delays themselves are a setting."""

_STREAM: Final[FieldTable] = {
    "x-queue-type": "stream",
    # Retention, a policy, drops whole segments. Their size can't be changed later; the default of 500 MB would keep
    # a quiet service's events for years.
    "x-stream-max-segment-size-bytes": 20_000_000,
}
_CONNECT_TIMEOUT: Final = 10.0
_LONGEST_PAUSE: Final = 2.0
_COPIES: Final = frozenset({"CC", "BCC"})
_LARGEST_PROPERTIES: Final = 100_000
"""Bytes. They travel in one frame, of 128 KiB at most unless the broker is configured otherwise."""


@contextlib.asynccontextmanager
async def connect(url: str, name: str) -> AsyncIterator[AbstractConnection]:
    """A connection for the length of the block. The time-out covers everything, not only the socket."""
    async with asyncio.timeout(_CONNECT_TIMEOUT):
        try:
            connection = await aio_pika.connect(url, client_properties={"connection_name": name}, heartbeat=20)
        except StopAsyncIteration:
            # The driver's end of stream. A proxy in front of a broker that is away takes connections and closes them.
            raise ConnectionError("closed before the broker said anything") from None
    try:
        yield connection
    finally:
        with contextlib.suppress(*BROKER_ERRORS):
            async with asyncio.timeout(5):
                await connection.close()


async def raw_channel(connection: AbstractConnection, *, confirms: bool) -> aiormq.Channel:
    """A channel of the driver underneath: futures and multiple acknowledgements without a layer in between."""
    channel = await connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
    underlay = await channel.get_underlay_channel()
    assert isinstance(underlay, aiormq.Channel)  # noqa: S101 - tells the type checker
    return underlay


async def until_unblocked(channel: aiormq.Channel, stop: asyncio.Event) -> None:
    """Returns once the broker's alarm is over that keeps it from taking what we publish; at once where there is none.

    Likewise when the connection ends, or `stop` is set.
    """
    ready = asyncio.ensure_future(channel.connection.ready())
    waits = [ready, asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait([*waits, channel.closing], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def run_with_reconnect(session: Callable[[], Awaitable[None]], stop: asyncio.Event, *, what: str) -> None:
    """Runs `session` again and again until it returns, or `stop` is set, pausing a little longer after each failure."""
    pause = 0.2
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        started = loop.time()
        try:
            await session()
        except BROKER_ERRORS as error:
            if loop.time() - started > 30:
                pause = 0.2
            log.warning("broker session ended, will try again", what=what, error=type(error).__name__, pause=pause)
            await first_of(stop, within=pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        else:
            return


async def declare_producer(channel: AbstractChannel, service: str, stream: str | None = None) -> None:
    """The service's exchange, and where its events go that nobody is bound to: unroutable is never silent.

    `stream`: the pattern of the types that are also kept in a stream, for readers with nothing but an AMQP client.
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
    if stream is not None:
        history = await channel.declare_queue(stream_of(service), durable=True, arguments=_STREAM)
        await history.bind(exchange, stream)


async def declare_consumer(channel: AbstractChannel, service: str, bindings: Iterable[tuple[str, str]]) -> None:
    """The service's inbound, retry and parked queues, and the bindings (exchange, routing key) of the first.

    Arguments hold only what makes the queue what it is: type, where dead letters go, and that none is dropped on the
    way. Limits live in policies. Parking comes first: a dead letter without a target would be lost.
    """
    inbound, parked = f"{service}.inbound", f"{service}.inbound.parked"
    await channel.declare_queue(parked, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.declare_queue(inbound, durable=True, arguments=_dead_letters_to(parked))
    for tier in RETRY_TIERS:
        # Back to this consumer's own queue by the default exchange, so that no other subscriber sees the event again.
        await channel.declare_queue(f"{inbound}.retry.{tier}", durable=True, arguments=_dead_letters_to(inbound))
    queue = await channel.declare_queue(inbound, passive=True)
    for exchange, routing_key in bindings:
        await queue.bind(exchange, routing_key)


def _dead_letters_to(queue: str) -> FieldTable:
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def make_sendable(properties: Basic.Properties, more_headers: dict[str, Any]) -> bool:
    """Makes received properties ones that we may send, with more headers; whether that can be done.

    The broker refuses the name of another sender, and would send copies to whom a CC names.
    """
    properties.user_id, properties.cluster_id, properties.delivery_mode = None, "", 2
    try:
        headers = {key: value for key, value in (properties.headers or {}).items() if key not in _COPIES}
        properties.headers = {**_sendable(headers), **more_headers}
        return len(properties.marshal()) <= _LARGEST_PROPERTIES
    except (ValueError, TypeError, OverflowError, RecursionError, struct.error):
        return False


def _sendable(value: Any) -> Any:
    """A received header as it can be sent again: the driver reads odd text as bytes, which it refuses to write."""
    match value:
        case dict():
            return {key: _sendable(item) for key, item in value.items()}
        case list():
            return [_sendable(item) for item in value]
        case bytes():
            return bytearray(value)
        case _:
            return value
