"""Reads the event log for many readers: a reader has a position, and what it has not read is where it was published.

The log has one order, in which its rows also become visible, so a position skips nothing. One query per wake-up serves
all readers at the end of the log. They wait without a connection, each until an event arrives that it may see. A reader
that is behind reads pages of its own, so a slow one costs memory for one page and holds up nobody.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Collection, Sequence
from functools import partial
from operator import attrgetter
from time import monotonic
from typing import Any, Final, NamedTuple
from uuid import UUID

from prometheus_client import Histogram

from common.db.database import EVENT_LOG_CHANNEL, EVENT_LOG_ERASED_CHANNEL, Database, utc_now
from common.db.driver_pool import DriverPool
from common.db.notify import listen
from common.errors import Unavailable
from common.feed.errors import HistoryGone
from common.messaging.cloudevents import structured
from common.messaging.replay import envelope
from common.runtime.background import background, every, first_of

LAG: Final = Histogram(
    "waybill_feed_lag_seconds",
    "Seconds from an event's change until this process offers the event to its readers.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 300),
)
_POLL: Final = 0.5
"""Seconds between looks at the log: a notification can be lost."""
_PAGE: Final = 500
_CHUNK: Final = 250
_LARGEST_PAGE: Final = 2 * 1024 * 1024
"""Characters after which a page ends early."""
_WINDOW: Final = 20_000
"""Positions that one statement reads at most: a rare type must not make it last."""
_REMEMBERED: Final = 2000
_REMEMBERED_SECONDS: Final = 2.0
_OLDEST_SECONDS: Final = 60.0
_READERS_CONNECTIONS: Final = 2

_SELECT: Final = """
    SELECT position, event_id, type, subject, version, occurred_at, data, traceparent, {owner} AS owner
    FROM event_log WHERE position > $1 AND position <= $2 AND (cardinality($4::text[]) = 0 OR type = ANY($4))"""
_ORDER: Final = " ORDER BY position LIMIT $3"
_OLDEST: Final = "SELECT min(position) FROM event_log"
_NEWEST: Final = "SELECT position, event_id FROM event_log WHERE true {visible} ORDER BY position DESC LIMIT 1"
_FIND: Final = "SELECT position, subject, {owner} AS owner FROM event_log WHERE event_id = $1"
_LAST_POSITION: Final = 2**63 - 1


class View(NamedTuple):
    """The events that a reader may see: those of one owner, those of one subject, or all."""

    owner: str | None = None
    subject: str | None = None

    def shows(self, owner: str | None, subject: str) -> bool:
        return self.owner in (None, owner) and self.subject in (None, subject)


class Published(NamedTuple):
    position: int
    id: UUID
    type: str
    subject: str
    owner: str | None
    text: str
    """The structured event, on one line."""


class Feed:
    """`owner` is an SQL expression of a row of the event log; `owned` selects the subjects of the owner `{owner}`.

    The second is for the index of subjects: no index of the log knows its owners.
    """

    def __init__(self, database: Database, *, name: str, owner: str, owned: str, timeout: float) -> None:
        pool = partial(DriverPool, database.endpoint, timeout=timeout)
        # The look at the log waits for no reader.
        self._following = pool(size=1, name=f"{name}-feed")
        self._reading = pool(size=_READERS_CONNECTIONS, name=f"{name}-feed-pages")
        self._dsn, self._name = database.dsn, f"{name}-feed-listen"
        select = _SELECT.format(owner=owner)
        self._all = select + _ORDER
        self._of_owner = f"{select} AND subject = ANY(ARRAY({owned.format(owner='$5')})){_ORDER}"
        self._of_subject = f"{select} AND subject = $5{_ORDER}"
        self._find = _FIND.format(owner=owner)
        self._newest_of_owner = _NEWEST.format(visible=f"AND subject = ANY(ARRAY({owned.format(owner='$1')}))")
        self._woken = asyncio.Event()
        self._recent: list[Published] = []
        """All events between the positions `_start` and `_end`, in their order."""
        self._read_at: list[float] = []
        self._start = self._end = -1
        self._oldest: tuple[float, int] | None = None
        self._arrivals: dict[View, set[asyncio.Future[int]]] = {}

    @property
    def end(self) -> int:
        """The position up to which this process has read the log. Raises `Unavailable` before it has."""
        if self._end < 0:
            raise Unavailable("The event log has not been read yet.")
        return self._end

    async def run(self) -> None:
        """Follows the log until cancelled."""
        erased = {EVENT_LOG_ERASED_CHANNEL: self._forget}
        async with background(
            partial(listen, EVENT_LOG_CHANNEL, self._woken.set, dsn=self._dsn, name=self._name, others=erased)
        ):
            await every(0, self._follow)

    async def close(self) -> None:
        await self._following.close()
        await self._reading.close()

    async def page(self, view: View, types: Collection[str], after: int, limit: int) -> tuple[Sequence[Published], int]:
        """Up to `limit` visible events of `types` (empty: of all) after a position, and the position then reached.

        A page that reached `end` is the last for now. It ends early if its events are large.
        """
        end = self.end
        if after >= self._start:
            later = self._recent[bisect_right(self._recent, after, key=attrgetter("position")) :]
            seen = [one for one in later if view.shows(one.owner, one.subject) and (not types or one.type in types)]
            shown = seen[:limit]
            return shown, shown[-1].position if len(seen) > limit else max(after, end)
        found: list[Published] = []
        size = 0
        while after < end and len(found) < limit and size < _LARGEST_PAGE:
            count = min(_CHUNK, limit - len(found))
            rows, reached = await self._rows(view, types, after, end, count)
            after = rows[-1].position if len(rows) == count else reached
            found += rows
            size += sum(len(row.text) for row in rows)
        return found, after

    async def position_of(self, event_id: UUID, view: View) -> int:
        """Raises `HistoryGone` if no visible event that is kept has this id."""
        for event in reversed(self._recent):
            if event.id == event_id:
                found: tuple[int, str, str | None] = event.position, event.subject, event.owner
                break
        else:
            rows = await self._reading.fetch(self._find, event_id)
            if not rows:
                raise HistoryGone
            found = rows[0]["position"], rows[0]["subject"], rows[0]["owner"]
        position, subject, owner = found
        if not view.shows(owner, subject):
            raise HistoryGone
        return position

    async def oldest(self) -> int:
        """A position before the oldest event, read from time to time: the log loses its oldest day once a day."""
        if self._oldest is None or self._oldest[0] < monotonic() - _OLDEST_SECONDS:
            [row] = await self._reading.fetch(_OLDEST)
            self._oldest = monotonic(), (row[0] or 1) - 1
        return self._oldest[1]

    async def newest(self, view: View) -> tuple[int, UUID | None]:
        """The position and the id of the newest visible event."""
        if view.subject is not None:
            rows = await self._reading.fetch(_NEWEST.format(visible="AND subject = $1"), view.subject)
        elif view.owner is not None:
            rows = await self._reading.fetch(self._newest_of_owner, view.owner)
        else:
            rows = await self._reading.fetch(_NEWEST.format(visible=""))
        return (rows[0]["position"], rows[0]["event_id"]) if rows else (await self.oldest(), None)

    def arrival(self, view: View) -> "asyncio.Future[int]":
        """Done once an event arrives that the view may show. The result is the position before it.

        For a reader that has reached `end`. It gives the future to `release` in any case.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._arrivals.setdefault(view, set()).add(future)
        return future

    def release(self, view: View, future: "asyncio.Future[int]") -> None:
        """Ends the wait. If no event has arrived yet, the result is the present end."""
        waiting = self._arrivals.get(view, set())
        waiting.discard(future)
        if not waiting:
            self._arrivals.pop(view, None)
        if not future.done():
            future.set_result(self._end)

    async def _follow(self) -> None:
        await first_of(self._woken, within=_POLL)
        self._woken.clear()
        if self._end < 0:
            rows = await self._following.fetch(_NEWEST.format(visible=""))
            self._start = self._end = rows[0]["position"] if rows else 0
        full = True
        while full:
            rows = await self._following.fetch(self._all, self._end, _LAST_POSITION, _PAGE, [])
            self._append(rows)
            full = len(rows) == _PAGE
        self._forget(older_than=monotonic() - _REMEMBERED_SECONDS)

    def _append(self, rows: Sequence[Any]) -> None:
        if not rows:
            return
        before, now = self._end, monotonic()
        events = [_published(row) for row in rows]
        self._recent += events
        self._read_at += [now] * len(events)
        self._end = events[-1].position
        for row in rows:
            LAG.observe(max(0.0, (utc_now() - row["occurred_at"]).total_seconds()))
        seen = {View(), *(View(owner=event.owner) for event in events)}
        seen |= {View(subject=event.subject) for event in events}
        for view in seen:
            for future in self._arrivals.get(view, ()):
                if not future.done():
                    future.set_result(before)

    def _forget(self, *, older_than: float | None = None) -> None:
        """Forgets the events read before, or all: what is erased in the log must not come from memory."""
        count = len(self._recent)
        if older_than is not None:
            count = max(bisect_right(self._read_at, older_than), count - _REMEMBERED)
        if count:
            self._start = self._recent[count - 1].position
            del self._recent[:count], self._read_at[:count]

    async def _rows(
        self, view: View, types: Collection[str], after: int, end: int, count: int
    ) -> tuple[Sequence[Published], int]:
        """Up to `count` events, and the position up to which these are all."""
        if view.subject is not None:
            rows = await self._reading.fetch(self._of_subject, after, end, count, list(types), view.subject)
        elif view.owner is not None:
            rows = await self._reading.fetch(self._of_owner, after, end, count, list(types), view.owner)
        else:
            end = min(end, after + _WINDOW)
            rows = await self._reading.fetch(self._all, after, end, count, list(types))
        return [_published(row) for row in rows], end


def _published(row: Any) -> Published:
    text = structured(envelope(row, row["traceparent"]))
    return Published(row["position"], row["event_id"], row["type"], row["subject"], row["owner"], text)
