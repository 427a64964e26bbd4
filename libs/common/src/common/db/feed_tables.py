"""Creates what `common.feed` needs, for migrations. Frozen, as `shared_tables`."""

from typing import Any, Final

from common.db.shared_tables import INVALID_POSITIONS, LOG_PARTITIONS, Operations

_INVALID_EVENT_IDS: Final = INVALID_POSITIONS.replace("position", "event\\_id")
_STREAM_SLOTS: Final = (
    """CREATE TABLE stream_processes (
    id uuid CONSTRAINT pk_stream_processes PRIMARY KEY,
    seen_at timestamptz NOT NULL
)""",
    """CREATE TABLE stream_slots (
    subject text NOT NULL,
    slot smallint NOT NULL,
    process uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_stream_slots PRIMARY KEY (subject, slot),
    CONSTRAINT ck_stream_slots_slot CHECK (slot >= 1)
)""",
)


def add_log_event_ids(op: Any) -> None:
    """Indexes the ids of the events in the log, as `add_log_positions` does the positions."""
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX IF NOT EXISTS ix_event_log_event_id ON ONLY event_log (event_id)")
        for index in op.get_bind().exec_driver_sql(_INVALID_EVENT_IDS).scalars().all():
            op.execute(f"DROP INDEX CONCURRENTLY {index}")
        for partition in op.get_bind().exec_driver_sql(LOG_PARTITIONS).scalars().all():
            index = f"{partition}_event_id_idx"
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {index} ON {partition} (event_id)")
            op.execute(f"ALTER INDEX ix_event_log_event_id ATTACH PARTITION {index}")


def drop_log_event_ids(op: Operations) -> None:
    op.execute("DROP INDEX ix_event_log_event_id")


def create_stream_slots(op: Operations) -> None:
    for statement in _STREAM_SLOTS:
        op.execute(statement)


def drop_stream_slots(op: Operations) -> None:
    op.execute("DROP TABLE stream_slots, stream_processes")
