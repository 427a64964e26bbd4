"""Deletes expired rows, in chunks, from a table that is not divided into partitions.

By PostgreSQL's clock or the newest row's time, whichever is earlier: a server whose clock jumped ahead deletes nothing
until it has written rows of its own. And at most a day's at a time: a wrong clock costs little before it is noticed.
"""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Select, Uuid, delete, func, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database, first_id_at

CHUNK: Final = 5000
_RUN: Final = timedelta(days=1)


async def expired_before(
    session: AsyncSession, kept: timedelta, *, oldest: Select[Any], newest: Select[Any]
) -> datetime | None:
    """The time before which rows have expired that are kept for `kept`. None if there are no rows.

    `oldest` and `newest` select the times of those rows.
    """
    first = oldest.scalar_subquery()
    present = func.least(func.now(), newest.scalar_subquery())
    row = (await session.execute(select(first, func.least(present - kept, first + _RUN)))).one()
    return None if row[0] is None else row[1]


async def delete_expired(
    database: Database, column: Column[Any], older_than: timedelta, *, index: Column[Any] | None = None
) -> int:
    """Deletes rows whose time in `column` is older, one transaction per chunk, oldest first. Returns how many.

    Skips rows that others have locked. `index` is a column of UUIDv7 to find the rows by, if `column` has no index.
    """
    order = column if index is None else index
    newest = select(column).where(column.is_not(None)).order_by(order.desc()).limit(1).scalar_subquery()
    async with database.transaction() as session:
        until = (await session.scalars(select(func.least(func.now(), newest) - older_than))).one()
        oldest = select(column).where(_is_before(until, column, order)).order_by(order).limit(1)
        first = await session.scalar(oldest)
    if first is None:
        return 0
    expired, since, count = _is_before(min(until, first + _RUN), column, order), None, 0
    while True:
        deleted = await _delete_chunk(database, order, expired, since=since)
        count += len(deleted)
        if len(deleted) < CHUNK:
            return count
        since = max(deleted)


def _is_before(moment: datetime, column: Column[Any], order: Column[Any]) -> ColumnElement[bool]:
    return (column < moment) & (order < (first_id_at(moment) if isinstance(order.type, Uuid) else moment))


async def _delete_chunk(
    database: Database, order: Column[Any], expired: ColumnElement[bool], *, since: datetime | UUID | None
) -> list[Any]:
    table, key = order.table, order.table.primary_key.columns
    # From the last chunk's end on: while a backup runs, PostgreSQL would read the rows deleted before in each chunk.
    rest = true() if since is None else order >= since
    old = select(*key).where(expired, rest).order_by(order).limit(CHUNK).with_for_update(skip_locked=True)
    async with database.transaction() as session:
        return list(await session.scalars(delete(table).where(tuple_(*key).in_(old)).returning(order)))
