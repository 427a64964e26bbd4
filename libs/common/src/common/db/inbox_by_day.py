"""Divides the inbox by the day of its event ids, for migrations. Frozen, as `shared_tables`."""

from datetime import UTC, datetime, timedelta
from typing import Final

from common.db.database import first_id_at
from common.db.shared_tables import Operations

# What an interrupted run left behind.
_CLEAR_INBOX: Final = (
    "ALTER TABLE inbox DROP CONSTRAINT IF EXISTS ck_inbox_before",
    "DROP TABLE IF EXISTS inbox_by_day",
)
_INBOX_BY_DAY: Final = (
    """CREATE TABLE inbox_by_day (
    LIKE inbox INCLUDING DEFAULTS,
    CONSTRAINT pk_inbox_by_day PRIMARY KEY (consumer, event_id)
) PARTITION BY RANGE (event_id)""",
    "CREATE TABLE inbox_default PARTITION OF inbox_by_day DEFAULT",
    "CREATE INDEX ix_inbox_default_received_at ON inbox_default (received_at)",
)
_IS_BEFORE: Final = "SELECT NOT EXISTS (SELECT FROM inbox WHERE event_id >= '{end}')"
# With this proof PostgreSQL attaches the old rows without reading them, which would block their consumers.
_PROVE_INBOX: Final = (
    "ALTER TABLE inbox ADD CONSTRAINT ck_inbox_before CHECK (event_id < '{end}') NOT VALID",
    "ALTER TABLE inbox VALIDATE CONSTRAINT ck_inbox_before",
)
# Ids of another kind, or from a clock that is far ahead.
_MOVE_LATER: Final = """
    WITH later AS (DELETE FROM inbox WHERE event_id >= '{end}' RETURNING *)
    INSERT INTO inbox_by_day SELECT * FROM later"""
_SWAP_INBOX: Final = (
    "ALTER TABLE inbox RENAME TO inbox_p{day}",
    "ALTER INDEX pk_inbox RENAME TO pk_inbox_p{day}",
    "ALTER INDEX ix_inbox_received_at RENAME TO inbox_p{day}_received_at",
    "ALTER TABLE inbox_by_day RENAME TO inbox",
    "ALTER INDEX pk_inbox_by_day RENAME TO pk_inbox",
    "ALTER TABLE inbox ATTACH PARTITION inbox_p{day} FOR VALUES FROM (MINVALUE) TO ('{end}')",
    "ALTER TABLE inbox_p{day} DROP CONSTRAINT IF EXISTS ck_inbox_before",
)
_REPLACE_INBOX: Final = (
    "DROP TABLE inbox",
    "ALTER TABLE inbox_by_day RENAME TO inbox",
    "ALTER INDEX pk_inbox_by_day RENAME TO pk_inbox",
)
_UNITE_INBOX: Final = (
    "LOCK TABLE inbox IN SHARE MODE",
    "CREATE TABLE inbox_whole (LIKE inbox INCLUDING DEFAULTS)",
    "INSERT INTO inbox_whole SELECT * FROM inbox",
    "DROP TABLE inbox",
    "ALTER TABLE inbox_whole RENAME TO inbox",
    "ALTER TABLE inbox ADD CONSTRAINT pk_inbox PRIMARY KEY (consumer, event_id)",
    "CREATE INDEX ix_inbox_received_at ON inbox (received_at)",
)
_INBOX_WEEK: Final = timedelta(days=7)
"""For so long the old table takes new rows as well. An interrupted migration has that time to be completed."""


def partition_inbox(op: Operations) -> None:
    """Divides the inbox by the day of its event ids. Consumers wait only for a moment, however many rows it has.

    The old table becomes the partition of all days up to the end of a week from now, so no row is moved, and is dropped
    as a whole when it is old. In a migration of its own: it commits in between, and can be run again at any point.
    """
    query = op.get_bind().exec_driver_sql
    today: datetime = query("SELECT date_trunc('day', now() AT TIME ZONE 'UTC')").scalar_one().replace(tzinfo=UTC)
    day, end = f"{today + _INBOX_WEEK - timedelta(days=1):%Y%m%d}", first_id_at(today + _INBOX_WEEK)
    with op.get_context().autocommit_block():
        for statement in (*_CLEAR_INBOX, *_INBOX_BY_DAY):
            op.execute(statement)
        if is_before := query(_IS_BEFORE.format(end=end)).scalar_one():
            for statement in _PROVE_INBOX:
                op.execute(statement.format(end=end))
    op.execute("LOCK TABLE inbox IN ACCESS EXCLUSIVE MODE")
    is_empty = not query("SELECT EXISTS (SELECT FROM inbox)").scalar_one()
    for statement in (*(() if is_before else (_MOVE_LATER,)), *(_REPLACE_INBOX if is_empty else _SWAP_INBOX)):
        op.execute(statement.format(day=day, end=end))


def unite_inbox(op: Operations) -> None:
    """Reverses `partition_inbox`."""
    for statement in _UNITE_INBOX:
        op.execute(statement)
