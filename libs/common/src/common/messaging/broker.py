"""RabbitMQ: connections, and the topology that each service declares for itself.

Plain connections, not aio-pika's robust ones: a role that loses its connection starts a new session from one loop, so
nothing is left half restored. (A robust connection redeclares on its own, and one mismatch loops all its channels.)
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

from common.messaging import pamqp_patch
from common.messaging.cloudevents import exchange_of, stream_of
from common.runtime.background import first_of

log = structlog.get_logger(__name__)

BROKER_ERRORS: Final = (
    aiormq.exceptions.AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,  # a plain RuntimeError, raised for any call on a closed channel
    OSError,
    TimeoutError,
    asyncio.InvalidStateError,
)
"""Raised by a broken connection, channel or broker."""

RETRY_TIERS: Final = ("5s", "1m", "10m")
"""Names of the retry queues. The delays are a setting and may differ from the names."""

_STREAM: Final[FieldTable] = {
    "x-queue-type": "stream",
    # Retention (a policy) drops whole segments. Their size cannot be changed later; with the default of 500 MB a quiet
    # service's events would stay for years.
    "x-stream-max-segment-size-bytes": 20_000_000,
}
_CONNECT_TIMEOUT: Final = 10.0
_LONGEST_PAUSE: Final = 2.0
_COPIES: Final = frozenset({"CC", "BCC"})
_LARGEST_PROPERTIES: Final = 100_000
"""Bytes. Properties are sent in one frame, which the broker limits to 128 KiB by default."""


@contextlib.asynccontextmanager
async def connect(url: str, name: str) -> AsyncIterator[AbstractConnection]:
    """A connection for the length of the block. The timeout covers the whole handshake, not only the socket."""
    pamqp_patch.install()
    async with asyncio.timeout(_CONNECT_TIMEOUT):
        try:
            connection = await aio_pika.connect(url, client_properties={"connection_name": name}, heartbeat=20)
        except StopAsyncIteration:
            # The driver's end of stream: a proxy accepts and closes connections while its broker is unavailable.
            raise ConnectionError("connection closed before the broker answered") from None
    try:
        yield connection
    finally:
        with contextlib.suppress(*BROKER_ERRORS):
            async with asyncio.timeout(5):
                await connection.close()


async def raw_channel(connection: AbstractConnection, *, confirms: bool) -> aiormq.Channel:
    """A channel of aiormq, the driver below aio-pika: futures and multiple acknowledgements with no layer between."""
    channel = await connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
    underlay = await channel.get_underlay_channel()
    assert isinstance(underlay, aiormq.Channel)  # noqa: S101 - tells the type checker
    return underlay


async def until_unblocked(channel: aiormq.Channel, stop: asyncio.Event) -> None:
    """Waits while a broker alarm blocks publishing. Returns as well when the connection ends or `stop` is set."""
    ready = asyncio.ensure_future(channel.connection.ready())
    waits = [ready, asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait([*waits, channel.closing], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def run_with_reconnect(session: Callable[[], Awaitable[None]], stop: asyncio.Event, *, what: str) -> None:
    """Runs `session` until it returns or `stop` is set. Retries after broker errors, pausing longer each time."""
    pause = 0.2
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        started = loop.time()
        try:
            await session()
        except BROKER_ERRORS as error:
            if loop.time() - started > 30:
                pause = 0.2
            log.warning("broker session ended, reconnecting", what=what, error=type(error).__name__, pause=pause)
            await first_of(stop, within=pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        else:
            return


async def declare_producer(channel: AbstractChannel, service: str, stream: str | None = None) -> None:
    """Declares the service's exchange, and an alternate exchange whose queue keeps events without a binding.

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
    if stream is not None:
        history = await channel.declare_queue(stream_of(service), durable=True, arguments=_STREAM)
        await history.bind(exchange, stream)


async def declare_consumer(channel: AbstractChannel, service: str, bindings: Iterable[tuple[str, str]]) -> None:
    """Declares the service's inbound, retry and parked queues, and binds the first to (exchange, routing key) pairs.

    Arguments hold what must not change: type, dead-letter target, and that no dead letter is dropped. Limits are
    policies. The parked queue is declared first: a dead letter without a target would be lost.
    """
    inbound, parked = f"{service}.inbound", f"{service}.inbound.parked"
    await channel.declare_queue(parked, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.declare_queue(inbound, durable=True, arguments=_dead_letters_to(parked))
    for tier in RETRY_TIERS:
        # Returns to this consumer's queue by the default exchange, so that no other subscriber receives the event.
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
    """Changes received properties so that we may send them, with more headers. Returns False if that is impossible.

    The broker refuses another sender's `user_id`, and would send copies to the queues in a CC header.
    """
    properties.user_id, properties.cluster_id, properties.delivery_mode = None, "", 2
    try:
        headers = {key: value for key, value in (properties.headers or {}).items() if key not in _COPIES}
        properties.headers = {**_sendable(headers), **more_headers}
        return len(properties.marshal()) <= _LARGEST_PROPERTIES
    except (ValueError, TypeError, OverflowError, RecursionError, struct.error):
        return False


def _sendable(value: Any) -> Any:
    """A received header value that can be sent again: the driver decodes odd text to bytes, which it cannot encode."""
    match value:
        case dict():
            return {key: _sendable(item) for key, item in value.items()}
        case list():
            return [_sendable(item) for item in value]
        case bytes():
            return bytearray(value)
        case _:
            return value
