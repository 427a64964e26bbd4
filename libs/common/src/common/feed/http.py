"""A feed's parameters and answers, for the routes of a service.

A lifespan that has entered `serving` yields its result as the state's `streams`.
"""

import contextlib
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.sse import EventSourceResponse

from common.db.driver_pool import DriverPool
from common.feed.log import Feed, Published, View
from common.feed.slots import StreamSlots
from common.feed.streams import Reader, Streams
from common.messaging.cloudevents import BATCH, STRUCTURED
from common.runtime.background import background
from common.runtime.health import Health
from common.security.guards import bearer_token
from common.security.tokens import TokenVerifier

MAX_LIMIT: Final = 1000
MAX_WAIT: Final = 30

After = Annotated[UUID | None, Query(description="The id of the last event that the reader has.")]


@contextlib.asynccontextmanager
async def serving(feed: Feed, slots: DriverPool, tokens: TokenVerifier, health: Health) -> AsyncIterator[Streams]:
    """Follows the log for the length of the block. `slots` is the pool for the statements about slots."""
    streams = Streams(feed, StreamSlots(slots), tokens, health)
    try:
        async with background(feed.run, streams.slots.run, streams.run):
            yield streams
    finally:
        await feed.close()


class _Types:
    """`?type=`, repeated, of a feed. An event type that its service does not publish is refused with 422."""

    statuses: ClassVar[tuple[int, ...]] = (410,)

    def __init__(self, known: Collection[str]) -> None:
        self._known = frozenset(known)

    def check(self, types: Collection[str]) -> frozenset[str]:
        if unknown := sorted(set(types) - self._known):
            raise _invalid("type", "unknown_type", f"Not a published type: {unknown[0][:100]}")
        return frozenset(types)


def _invalid(name: str, code: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": code, "loc": ("query", name), "msg": message, "input": None}])


@dataclass(frozen=True, slots=True)
class PageParams:
    after: UUID | None
    from_latest: bool
    types: frozenset[str]
    limit: int
    wait: int


class FeedPage(_Types):
    """The parameters of a page, as a dependency."""

    async def __call__(
        self,
        after: After = None,
        start: Annotated[
            Literal["latest"] | None, Query(alias="from", description="`latest` begins now. Not with `after`.")
        ] = None,
        types: Annotated[list[str], Query(alias="type", description="Only these event types.")] = [],  # noqa: B006
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="The maximum number of events.")] = 100,
        wait: Annotated[int, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for an event.")] = 0,
    ) -> PageParams:
        if after is not None and start is not None:
            raise _invalid("from", "from_and_after", "Either `from` or `after`")
        return PageParams(after, start is not None, self.check(types), limit, wait)


@dataclass(frozen=True, slots=True)
class StreamParams:
    after: UUID | None
    types: frozenset[str]


class FeedStream(_Types):
    """The parameters of a stream, as a dependency."""

    statuses: ClassVar[tuple[int, ...]] = (410, 429)

    async def __call__(
        self,
        after: After = None,
        types: Annotated[list[str], Query(alias="type", description="Only these event types.")] = [],  # noqa: B006
        last_event_id: Annotated[
            UUID | None, Header(description="As `after`, which it overrides. Sent by browsers when they reconnect.")
        ] = None,
    ) -> StreamParams:
        return StreamParams(last_event_id or after, self.check(types))


async def answer_page(request: Request, params: PageParams, view: View) -> Response:
    """The events after a position, or an empty page when the wait is over."""
    streams: Streams = request.state.streams
    feed, loop = streams.feed, get_running_loop()
    last = params.after
    if params.from_latest:
        position, last = await feed.newest(view)
    else:
        position = await feed.oldest() if last is None else await feed.position_of(last, view)
    began = loop.time()
    reader = Reader(feed, view, params.types, position, request.state.principal)
    with streams.reading(reader):
        events = await reader.next(params.limit)
        while not events and reader.end is None and (left := began + params.wait - loop.time()) > 0:
            await reader.wait(left)
            events = await reader.next(params.limit)
    request.state.waited = loop.time() - began
    if reader.end is not None:
        await request.state.tokens.verify(bearer_token(request))
    headers = {}
    if params.from_latest or reader.has_more or len(events) == params.limit:
        headers["Link"] = f'<{_next(request, params, events[-1].id if events else last)}>; rel="next"'
    return Response(_batch(events), headers=headers, media_type=BATCH)


async def answer_stream(request: Request, params: StreamParams, view: View) -> Response:
    """A stream of the events after a position, by default from now on."""
    if request.scope.get("is_head"):
        return EventSourceResponse(())
    streams: Streams = request.state.streams
    if params.after is None:
        position, _ = await streams.feed.newest(view)
    else:
        position = await streams.feed.position_of(params.after, view)
    return await streams.open(Reader(streams.feed, view, params.types, position, request.state.principal))


def _next(request: Request, params: PageParams, last: UUID | None) -> str:
    query: list[tuple[str, Any]] = [("after", last)] if last is not None else []
    query += [("type", one) for one in sorted(params.types)]
    return f"{request.scope['path']}?{urlencode([*query, ('limit', params.limit)])}"


def _batch(events: Collection[Published]) -> str:
    return f"[{','.join(event.text for event in events)}]"


_EVENT: Final = {
    "type": "object",
    "required": ["specversion", "id", "source", "type", "subject", "time", "aggregateversion", "partitionkey", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "format": "uuid"},
        "source": {"type": "string", "format": "uri-reference"},
        "type": {"type": "string"},
        "subject": {"type": "string", "description": "The aggregate's id."},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "dataschema": {"type": "string", "format": "uri"},
        "aggregateversion": {"type": "integer", "minimum": 1},
        "partitionkey": {"type": "string"},
        "traceparent": {"type": "string"},
        "data": {"type": "object", "description": "As in the schema of the event's type."},
    },
}
PAGE_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "A batch of CloudEvents, in the order in which they were published",
        "content": {BATCH: {"schema": {"type": "array", "items": _EVENT}}},
        "headers": {"Link": {"description": "`rel=next` continues.", "schema": {"type": "string"}}},
    }
}
STREAM_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": f"Server-sent events, whose `data` is {STRUCTURED}. The event `end` gives the reason of an end",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
