"""The last version that a consumer has seen of each aggregate of which it receives every event: so it can see a gap.

A gap means that an earlier event is still on its way, in a retry queue or in another process of the consumer. An
aggregate that was never seen has no gap, whatever its version: the consumer may have started late.
"""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Column, DateTime, Integer, MetaData, Table, Text, func
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.bulk import columns_of, insert_rows
from common.db.database import NAMING

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
