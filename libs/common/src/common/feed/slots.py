"""How many streams one subject has open, over all processes of the service.

A stream holds one of the subject's slots, which are rows. A slot is free once its stream has given it back, its token
has expired, or its process was not seen for a while: that of a killed process comes back within `_SEEN` seconds.
"""

import asyncio
import contextlib
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from common.db.driver_pool import DriverPool
from common.db.outages import is_outage
from common.feed.errors import TooManyStreams
from common.runtime.background import every, first_of

MOST: Final = 5
_RENEW: Final = 3.0
_SEEN: Final = 10.0
_HELD: Final = f"""
    {{row}}.expires_at > now() AND EXISTS (
        SELECT FROM stream_processes AS p
        WHERE p.id = {{row}}.process AND p.seen_at > now() - interval '{_SEEN} seconds')"""
_SEEN_NOW: Final = """
    INSERT INTO stream_processes (id, seen_at) VALUES ($1, now()) ON CONFLICT (id) DO UPDATE SET seen_at = now()"""
# Two that take the same slot at once: the second finds it held, and gets no row.
_TAKE: Final = f"""
    WITH held AS (SELECT slot FROM stream_slots AS s WHERE subject = $1 AND {_HELD.format(row="s")}),
    taken AS (
        INSERT INTO stream_slots AS s (subject, slot, process, expires_at)
        SELECT $1, slot, $2, now() + make_interval(secs => $3) FROM generate_series(1, $4::integer) AS slot
        WHERE slot NOT IN (SELECT slot FROM held) ORDER BY slot LIMIT 1
        ON CONFLICT (subject, slot) DO UPDATE SET process = excluded.process, expires_at = excluded.expires_at
        WHERE NOT ({_HELD.format(row="s")})
        RETURNING slot)
    SELECT (SELECT count(*) FROM held) AS held, (SELECT slot FROM taken) AS slot"""  # noqa: S608 - constants
_GIVE_BACK: Final = """
    DELETE FROM stream_slots USING unnest($2::text[], $3::smallint[]) AS back (subject, slot)
    WHERE stream_slots.subject = back.subject AND stream_slots.slot = back.slot AND process = $1"""
_GIVE_ALL_BACK: Final = """
    WITH slots AS (DELETE FROM stream_slots WHERE process = $1) DELETE FROM stream_processes WHERE id = $1"""
_CLEAN: Final = """
    WITH processes AS (DELETE FROM stream_processes WHERE seen_at < now() - interval '1 hour')
    DELETE FROM stream_slots WHERE expires_at < now() - interval '1 hour'"""
_CLEAN_INTERVAL: Final = 600.0
_PAUSES: Final = (0.1, 0.3, 0.6)
"""Seconds before further looks for a free slot: whoever reconnects at the end of a stream comes before it is free."""


class Slot(NamedTuple):
    subject: str
    number: int


class StreamSlots:
    def __init__(self, pool: DriverPool) -> None:
        self._pool = pool
        self._process: UUID = uuid4()
        self._is_known = False
        self._returned: list[Slot] = []
        self._woken = asyncio.Event()

    async def take(self, subject: str, *, seconds: float) -> Slot:
        """A slot for at most `seconds`. Raises `TooManyStreams`."""
        if not self._is_known:  # committed before the first slot, so that nobody takes us for dead
            await self._pool.fetch(_SEEN_NOW, self._process)
            self._is_known = True
        pauses = iter(_PAUSES)
        while True:
            [row] = await self._pool.fetch(_TAKE, subject, self._process, seconds, MOST)
            if row["slot"] is not None:
                return Slot(subject, row["slot"])
            if row["held"] >= MOST:
                if (pause := next(pauses, None)) is None:
                    raise TooManyStreams(MOST)
                await asyncio.sleep(pause)

    def give_back(self, slot: Slot) -> None:
        self._returned.append(slot)
        self._woken.set()

    async def run(self) -> None:
        """Gives slots back and shows that the process lives, until cancelled; then gives all back."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(every(0, self._renew))
                tasks.create_task(every(_CLEAN_INTERVAL, self._clean))
        finally:
            with contextlib.suppress(Exception):
                await self._pool.fetch(_GIVE_ALL_BACK, self._process)

    async def _renew(self) -> None:
        await first_of(self._woken, within=_RENEW)
        self._woken.clear()
        returned, self._returned = self._returned, []
        try:
            if returned:
                subjects, numbers = [slot.subject for slot in returned], [slot.number for slot in returned]
                await self._pool.fetch(_GIVE_BACK, self._process, subjects, numbers)
            if self._is_known:
                await self._pool.fetch(_SEEN_NOW, self._process)
        except Exception as error:
            if is_outage(error):
                self._returned += returned
            raise

    async def _clean(self) -> None:
        await self._pool.fetch(_CLEAN)
