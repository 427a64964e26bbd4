"""Retention of a consumer's own rows: deletes, in chunks, what no replay can deliver again."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import Column, delete, func, select, tuple_

from common.db.database import Database
from common.runtime.background import background, every

EVERY: Final = 3600.0
CHUNK: Final = 5000
MARGIN: Final = timedelta(days=7)
"""On top of the history that producers keep: a replay may wait in the queue, an event in the outbox."""


def deleting_expired(
    database: Database, columns: Sequence[Column[Any]], history: timedelta
) -> AbstractAsyncContextManager[None]:
    """Deletes, now and every hour, rows whose time in one of `columns` is older than `history` and a margin.

    At most a day's rows at a time, by PostgreSQL's clock: a wrong clock costs little before it is noticed.
    """

    async def delete_all() -> None:
        for column in columns:
            async with database.transaction() as session:
                oldest = await session.scalar(select(func.min(column)))
            if oldest is None:
                continue
            until = oldest + timedelta(days=1)
            while await delete_expired(database, column, history + MARGIN, until=until) == CHUNK:
                pass

    return background(partial(every, EVERY, delete_all))


async def delete_expired(
    database: Database, column: Column[Any], older_than: timedelta, *, until: datetime | None = None
) -> int:
    """Deletes up to `CHUNK` rows in one transaction and returns how many. Skips rows that others have locked.

    Rows from `until` on stay.
    """
    table, key = column.table, column.table.primary_key.columns
    old = (
        select(*key)
        .where(column < func.least(func.now() - older_than, until))
        .order_by(column)
        .limit(CHUNK)
        .with_for_update(skip_locked=True)
    )
    statement = delete(table).where(tuple_(*key).in_(old)).returning(column)
    async with database.transaction() as session:
        return len((await session.execute(statement)).all())
