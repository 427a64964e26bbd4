"""RabbitMQ: connections, channels, and sending a received message on.

Plain connections, not aio-pika's robust ones: a role that loses its connection starts a whole new session in one loop,
so that nothing is left half restored. (A robust connection redeclares on its own; if one declaration does not match,
all its channels fail in a loop.)
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import aio_pika
import aiormq
import structlog
from aio_pika.abc import AbstractConnection
from pamqp.commands import Basic

from common.messaging import pamqp_patch
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
            # The driver's end of stream, such as from a proxy that closes connections while its broker is unavailable.
            raise ConnectionError("connection closed before the broker answered") from None
    try:
        yield connection
    finally:
        with contextlib.suppress(*BROKER_ERRORS):
            async with asyncio.timeout(5):
                await connection.close()


async def raw_channel(connection: AbstractConnection, *, confirms: bool) -> aiormq.Channel:
    """A channel of aiormq, the driver below aio-pika: futures and multiple acknowledgements with no layer between."""
    try:
        channel = await connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
    except RuntimeError as error:  # what aio-pika raises for a closed connection
        raise ConnectionError(str(error)) from None
    underlay = await channel.get_underlay_channel()
    assert isinstance(underlay, aiormq.Channel)  # noqa: S101 - for the type checker
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


def prepare_for_resending(properties: Basic.Properties, more_headers: dict[str, Any]) -> bool:
    """Changes received properties so that we may send them, with more headers. Returns False if that is impossible.

    The broker refuses another sender's `user_id`, and would send copies to the queues in a CC header.
    """
    properties.user_id, properties.cluster_id, properties.delivery_mode = None, "", 2
    try:
        headers = {key: value for key, value in (properties.headers or {}).items() if key not in _COPIES}
        properties.headers = {**_encodable(headers), **more_headers}
        return len(properties.marshal()) <= _LARGEST_PROPERTIES
    except (ValueError, TypeError, OverflowError, RecursionError, struct.error):
        return False


def _encodable(value: Any) -> Any:
    """A received header value that can be sent again: the driver decodes odd text to bytes, which it cannot encode."""
    match value:
        case dict():
            return {key: _encodable(item) for key, item in value.items()}
        case list():
            return [_encodable(item) for item in value]
        case bytes():
            return bytearray(value)
        case _:
            return value
