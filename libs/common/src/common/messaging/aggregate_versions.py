"""The last version that a consumer has seen of each aggregate of which it receives every event: so it can see a gap.

A gap means that an earlier event is still on its way, in a retry queue or in another process of the consumer. Versions
begin at 1, so an aggregate that was never seen has a gap at any other version, unless it may be older than these rows:
the consumer may have started late, or forgotten it. The time in its id (UUIDv7) says so; ids of other kinds have none.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Column, DateTime, Integer, MetaData, Table, Text, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.bulk import columns_of, insert_rows
from common.db.database import NAMING, first_id_at

metadata: Final = MetaData(naming_convention=NAMING)

aggregate_versions: Final = Table(
    "aggregate_versions",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("aggregate", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("known_since", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
)

Aggregate = tuple[str, str]
"""Kind (`orders.order`) and id."""
UNKNOWN: Final = -1
_ANY: Final = ""
"""The subject of the row that says since when the order of a kind is kept. It expires as others do."""

_rows: Final = insert_rows(aggregate_versions, "consumer", "aggregate", "subject", "version")
_ADVANCE: Final = _rows.on_conflict_do_update(
    constraint=aggregate_versions.primary_key,
    set_={"version": func.greatest(aggregate_versions.c.version, _rows.excluded.version)},
).returning(aggregate_versions.c.aggregate, aggregate_versions.c.subject, aggregate_versions.c.version)


async def advance(session: AsyncSession, consumer: str, versions: Mapping[Aggregate, int]) -> dict[Aggregate, int]:
    """Locks these aggregates until the transaction ends, raises their versions to these, and returns the result.

    A version never decreases, so `UNKNOWN` only reads.
    """
    if not versions:
        return {}
    # Sorted, so that two processes of a consumer wait for each other instead of deadlocking.
    rows = [
        {"consumer": consumer, "aggregate": kind, "subject": subject, "version": version}
        for (kind, subject), version in sorted(versions.items())
    ]
    current = await session.execute(_ADVANCE, columns_of(rows))
    return {(kind, subject): version for kind, subject, version in current}


async def keep_order(session: AsyncSession, consumer: str, kinds: Collection[str]) -> None:
    """Records, the first time, that the consumer receives all events of these kinds of aggregates from now on."""
    await advance(session, consumer, {(kind, _ANY): 0 for kind in kinds})


async def seen_from_birth(session: AsyncSession, consumer: str, aggregates: Collection[Aggregate]) -> list[Aggregate]:
    """Those aggregates that are younger than the oldest row of their kind, so that all their events were received."""
    since = {}
    columns = aggregate_versions.c
    for kind in {kind for kind, _ in aggregates}:
        oldest = select(func.min(columns.known_since)).where(columns.consumer == consumer, columns.aggregate == kind)
        since[kind] = await session.scalar(oldest)
    return [(kind, subject) for kind, subject in aggregates if _is_younger(subject, since[kind])]


def _is_younger(subject: str, since: datetime | None) -> bool:
    try:
        identifier = UUID(subject)
    except ValueError:
        return False
    return since is not None and identifier.version == 7 and identifier >= first_id_at(since)
