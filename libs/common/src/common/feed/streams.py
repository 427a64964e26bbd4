"""Streams of server-sent events (WHATWG HTML §9.2), and the end of everything that waits for events.

A stream is one task that sends what the feed has after its position. Nothing is queued for it: while its client takes
nothing, the server stops it, and it reads on from where it was.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Collection, Iterator
from time import monotonic, time
from typing import Any, Final, Literal

import structlog
from fastapi.sse import EventSourceResponse, format_sse_event
from prometheus_client import Gauge
from starlette.types import Receive, Scope, Send

from common.db.outages import is_outage
from common.feed.log import Feed, View
from common.feed.slots import Slot, StreamSlots
from common.runtime.background import every
from common.runtime.health import Health
from common.security.tokens import Principal, TokenVerifier

log = structlog.get_logger(__name__)

OPEN: Final = Gauge("waybill_feed_streams", "Open streams of events.")
_LOOK: Final = 0.4
"""Seconds between looks for what has ended."""
_COMMENT_INTERVAL: Final = 15.0
_COMMENT: Final = b": \n\n"
_PAGE: Final = 50
_RETRY: Final = 1.0
_SLOT_MARGIN: Final = 30.0
"""Seconds that a slot outlives its token: leeway and the difference between two clocks."""
_HEADERS: Final = {"X-Accel-Buffering": "no"}  # for an nginx before us

End = Literal["expired", "revoked", "shutdown"]


class Reader:
    """Somebody who reads with a token, and waits for events in between."""

    def __init__(self, feed: Feed, view: View, types: Collection[str], position: int, principal: Principal) -> None:
        self.principal = principal
        self.end: End | None = None
        self.has_more = False
        """Whether the last events were not yet those at the end of the log."""
        self.due = monotonic() + _COMMENT_INTERVAL
        self._feed, self._view, self._types, self._position = feed, view, types, position
        self._arrival: asyncio.Future[int] | None = None

    async def next(self, limit: int) -> Any:
        """The next events: none at the end of the log."""
        while True:
            events, self._position = await self._feed.page(self._view, self._types, self._position, limit)
            self.has_more = self._position < self._feed.end
            if events or not self.has_more:
                return events

    async def wait(self, within: float | None = None) -> None:
        """Until an event arrives, `wake` is called or `within` seconds are over. Called at the end of the log."""
        arrival = self._arrival = self._feed.arrival(self._view)
        try:
            async with asyncio.timeout(within):
                self._position = max(self._position, await arrival)
        except TimeoutError:
            pass
        finally:
            self._arrival = None
            self._feed.release(self._view, arrival)

    def wake(self) -> None:
        if self._arrival is not None:
            self._feed.release(self._view, self._arrival)


class Streams:
    """All readers of the process, and the slots of its streams."""

    def __init__(self, feed: Feed, slots: StreamSlots, tokens: TokenVerifier, health: Health) -> None:
        self.feed = feed
        self.slots = slots
        self._tokens = tokens
        self._health = health
        self._readers: set[Reader] = set()

    async def run(self) -> None:
        """Ends what has to end, until cancelled."""
        await every(_LOOK, self._look)

    @contextlib.contextmanager
    def reading(self, reader: Reader) -> Iterator[None]:
        """Sets `reader.end` within a second of its cause, and wakes the reader then and when a comment is due."""
        reader.end = self._end_of(reader)
        self._readers.add(reader)
        try:
            yield
        finally:
            self._readers.discard(reader)

    async def open(self, reader: Reader) -> "EventStreamResponse":
        """The answer that streams what the reader reads. Raises `TooManyStreams`."""
        seconds = max(reader.principal.expires_at - time(), 0) + _SLOT_MARGIN
        return EventStreamResponse(self, await self.slots.take(reader.principal.subject, seconds=seconds), reader)

    async def _look(self) -> None:
        now = monotonic()
        for reader in list(self._readers):
            reader.end = reader.end or self._end_of(reader)
            if reader.end is not None or now >= reader.due:
                reader.wake()

    def _end_of(self, reader: Reader) -> End | None:
        return self._tokens.ended(reader.principal) or ("shutdown" if self._health.draining else None)


class EventStreamResponse(EventSourceResponse):
    """FastAPI's response for server-sent events. It gives its slot back however it ends."""

    def __init__(self, streams: Streams, slot: Slot, reader: Reader) -> None:
        super().__init__(_frames(reader), headers=_HEADERS)
        self._streams, self._slot, self._reader = streams, slot, reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = monotonic()
        OPEN.inc()
        try:
            with self._streams.reading(self._reader):
                await super().__call__(scope, receive, send)
        finally:
            OPEN.dec()
            self._streams.slots.give_back(self._slot)
            scope["state"]["waited"] = monotonic() - began


async def _frames(reader: Reader) -> AsyncIterator[bytes]:
    yield _COMMENT
    while reader.end is None:
        try:
            events = await reader.next(_PAGE)
        except Exception as error:
            if not is_outage(error):
                log.exception("stream of events failed")
                return
            await asyncio.sleep(_RETRY)
            continue
        if events and reader.end is None:
            yield b"".join(
                format_sse_event(event=event.type, data_str=event.text, id=str(event.id)) for event in events
            )
        elif not events:
            await reader.wait()
        if monotonic() >= reader.due:
            reader.due = monotonic() + _COMMENT_INTERVAL
            yield _COMMENT
    yield format_sse_event(event="end", data_str=json.dumps({"reason": reader.end}))
