"""Gauge of how far the stream of a service's events reaches back, measured by reading its first message.

A stream drops its oldest events by age and by size, so a higher rate of events makes it shorter. It is whole as long as
the event log has no older event.
"""

import asyncio
import contextlib
import math
import re
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Final

from aio_pika.abc import AbstractIncomingMessage
from aiormq.exceptions import ChannelNotFoundEntity
from prometheus_client import Gauge

from common.db.database import utc_now
from common.db.driver import driver_connection
from common.messaging import broker
from common.messaging.cloudevents import stream_of
from common.runtime.background import background, every
from common.settings import ServiceSettings

EVERY: Final = 60.0
REACH: Final = Gauge(
    "waybill_stream_reach_seconds",
    "Age of the stream's oldest event; infinite while the event log has no older event of its types.",
)
REACH.set(math.inf)  # not 0 before the first measurement, or where there is no stream
_REACH: Final = """
    SELECT CASE WHEN EXISTS (SELECT FROM event_log WHERE published_at < $1 AND type ~ $2)
           THEN extract(epoch FROM now() - $1::timestamptz) ELSE 'infinity' END::float8"""
_TIMEOUT: Final = 10.0


def measuring_stream(settings: ServiceSettings) -> AbstractAsyncContextManager[None]:
    """Measures now and every minute; without an answer of the broker or the database the last value stays."""
    return background(partial(every, EVERY, partial(_measure, settings)))


async def _measure(settings: ServiceSettings) -> None:
    if settings.streamed is None:
        return
    oldest = await _oldest(settings) or utc_now()
    async with driver_connection(settings.database_url.get_secret_value()) as connection:
        REACH.set(await connection.fetchval(_REACH, oldest, _expression(settings.streamed)))


async def _oldest(settings: ServiceSettings) -> datetime | None:
    """The time of the stream's first event. None if there is none: a stream keeps its last segment, so it was lost."""
    first: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    url, name = settings.amqp_url.get_secret_value(), f"{settings.service}-stream"
    async with broker.connect(url, name) as connection:
        channel = await connection.channel()
        await channel.set_qos(1)
        stream = await channel.get_queue(stream_of(settings.service), ensure=False)
        with contextlib.suppress(ChannelNotFoundEntity, TimeoutError):  # not declared yet, or empty
            await stream.consume(first.put, arguments={"x-stream-offset": "first"})
            return (await asyncio.wait_for(first.get(), _TIMEOUT)).timestamp
    return None


def _expression(pattern: str) -> str:
    """The regular expression of an AMQP topic."""
    return f"^{re.escape(pattern).replace(re.escape('#'), '.*').replace(re.escape('*'), '[^.]+')}$"
