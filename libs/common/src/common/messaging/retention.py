"""Retention of a consumer's own rows: deletes, in chunks, what no replay can deliver again."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import Column, delete, func, select, tuple_

from common.db.database import Database
from common.db.retention import expired_before
from common.runtime.background import background, every

EVERY: Final = 3600.0
CHUNK: Final = 5000
MARGIN: Final = timedelta(days=7)
"""On top of the history that producers keep: a replay may wait in the queue, an event in the outbox."""


def deleting_expired(
    database: Database, columns: Sequence[Column[Any]], history: timedelta
) -> AbstractAsyncContextManager[None]:
    """Deletes, now and every hour, rows whose time in one of `columns` is older than `history` and a margin.

    A day's rows at most, and none while the first column's newest row is as old: see `expired_before`.
    """
    newest = select(func.max(columns[0]))

    async def delete_all() -> None:
        for column in columns:
            async with database.transaction() as session:
                oldest = select(func.min(column))
                before = await expired_before(session, history + MARGIN, oldest=oldest, newest=newest)
            while before is not None and await delete_expired(database, column, before) == CHUNK:
                pass

    return background(partial(every, EVERY, delete_all))


async def delete_expired(database: Database, column: Column[Any], before: datetime) -> int:
    """Deletes up to `CHUNK` rows in one transaction and returns how many. Skips rows that others have locked."""
    table, key = column.table, column.table.primary_key.columns
    old = select(*key).where(column < before).order_by(column).limit(CHUNK).with_for_update(skip_locked=True)
    statement = delete(table).where(tuple_(*key).in_(old)).returning(column)
    async with database.transaction() as session:
        return len((await session.execute(statement)).all())
