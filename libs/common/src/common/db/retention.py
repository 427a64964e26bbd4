"""Which rows a run of a cleanup may delete: by clocks that no host with a wrong date can move."""

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

_RUN: Final = timedelta(days=1)


async def expired_before(
    session: AsyncSession, kept: timedelta, *, oldest: Select[Any], newest: Select[Any]
) -> datetime | None:
    """The time before which rows have expired that are kept for `kept`. None if there are no rows.

    The present is PostgreSQL's, but no later than the time that `newest` selects: a server whose clock jumped ahead
    deletes nothing until it has written rows of its own. At most a day's rows from `oldest` on expire in one run, so
    that a wrong clock costs little before it is noticed.
    """
    first = oldest.scalar_subquery()
    present = func.least(func.now(), newest.scalar_subquery())
    row = (await session.execute(select(first, func.least(present - kept, first + _RUN)))).one()
    return None if row[0] is None else row[1]
