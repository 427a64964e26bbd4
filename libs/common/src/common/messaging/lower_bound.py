"""The id below which the outbox has no rows any more, so that the relay need not look there.

PostgreSQL keeps deleted rows while an older snapshot is held, as by `pg_dump`. Without a bound each batch would read
over all rows deleted since. But ids are assigned at insert and become visible at commit: a row that commits late can
have a lower id than one that was published. So the bound follows an id only after all transactions that wrote to the
outbox when the id was read have ended, and a later batch has read once more from the old bound.
"""

from time import monotonic
from typing import Any, Final

_INTERVAL: Final = 0.25
"""Seconds between looks at the writers' locks, by which the bound also trails."""
_SWEEP: Final = 60.0
"""Seconds until a batch reads from the beginning: for rows that no transaction of a writer explains."""
# A writer locks the table before its row gets an id, and until its transaction ends. So this is exact, unlike
# transaction ids, which are assigned after the row's id. And other long transactions do not hold back the bound.
# No row while events wait behind one that cannot be sent: they are not read, and the bound must not pass them.
_WRITERS: Final = """
    SELECT ARRAY(SELECT virtualtransaction FROM pg_locks
        WHERE locktype = 'relation' AND relation = 'outbox'::regclass AND mode = 'RowExclusiveLock'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    WHERE NOT EXISTS (SELECT FROM unsendable_events WHERE skipped_at IS NULL)"""


class LowerBound:
    """The bound of one set of partitions. A new one reads from the beginning."""

    def __init__(self) -> None:
        self._bound = 0
        self._candidate = 0
        """The id that the bound may take once `_writers` have ended; 0 if there is none."""
        self._writers: set[str] = set()
        self._looked = self._swept = monotonic()

    def after(self, *, sweep: bool) -> int:
        """Rows are to be read from above this id: from 0 now and then, if the caller allows a `sweep`.

        A batch that leaves out rows on purpose does not allow it, since it could not return to the bound.
        """
        if sweep and monotonic() - self._swept > _SWEEP:
            self._swept = monotonic()
            self._bound, self._candidate, self._writers = 0, self._bound, set()
        return self._bound

    async def moved(self, connection: Any, last: int | None) -> None:
        """Called after the commit of a batch that moved all the rows that it found up to the id `last`.

        `None` if it found no rows at all.
        """
        interval = _INTERVAL if self._bound else 0.0  # without a bound each batch reads over all deleted rows
        if not (self._candidate or last) or monotonic() - self._looked < interval:
            return
        writers = await connection.fetchval(_WRITERS)
        self._looked = monotonic()
        if writers is None:
            self._candidate = 0
        elif not self._candidate:
            self._candidate, self._writers = last or 0, set(writers)
        elif self._writers:
            self._writers.intersection_update(writers)
        elif last is None or last >= self._candidate:
            self._bound, self._candidate = self._candidate, 0
