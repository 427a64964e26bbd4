"""DDL of the shared tables, for migrations.

Frozen: to change a table, add a function here and a migration that calls it.
"""

from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

_OUTBOX: Final = (
    """CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_outbox PRIMARY KEY,
    event_id uuid NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    version integer NOT NULL,
    occurred_at timestamptz NOT NULL,
    data jsonb NOT NULL,
    traceparent text
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0)""",
    """CREATE TABLE event_log (
    published_at timestamptz NOT NULL DEFAULT now(),
    position bigint GENERATED ALWAYS AS IDENTITY,
    event_id uuid NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    version integer NOT NULL,
    occurred_at timestamptz NOT NULL,
    data jsonb NOT NULL,
    traceparent text,
    CONSTRAINT pk_event_log PRIMARY KEY (published_at, position)
) PARTITION BY RANGE (published_at)""",
    "CREATE INDEX ix_event_log_subject ON event_log (subject)",
    # For days whose partition was not created in time, so that the relay can still move its rows.
    "CREATE TABLE event_log_default PARTITION OF event_log DEFAULT",
)

_INBOX: Final = (
    """CREATE TABLE inbox (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_inbox PRIMARY KEY (consumer, event_id)
)""",
    "CREATE INDEX ix_inbox_received_at ON inbox (received_at)",
    """CREATE TABLE parked_messages (
    id uuid CONSTRAINT pk_parked_messages PRIMARY KEY,
    consumer text NOT NULL,
    event_id text,
    type text,
    cause text NOT NULL,
    attempts integer NOT NULL,
    body bytea NOT NULL,
    properties jsonb NOT NULL,
    digest bytea NOT NULL GENERATED ALWAYS AS (sha256(body)) STORED,
    parked_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    resolution text,
    reason text,
    CONSTRAINT ck_parked_messages_resolved CHECK ((resolved_at IS NULL) = (resolution IS NULL)),
    CONSTRAINT ck_parked_messages_resolution CHECK (resolution IN ('replayed', 'discarded'))
)""",
    "CREATE INDEX ix_parked_messages_parked_at ON parked_messages (parked_at)",
    # The same message delivered again is not parked twice; with another body it is another message.
    """CREATE UNIQUE INDEX uq_parked_messages_open ON parked_messages (consumer, event_id, digest)
    NULLS NOT DISTINCT WHERE resolved_at IS NULL""",
)


_VERSIONS: Final = (
    """CREATE TABLE aggregate_versions (
    consumer text NOT NULL,
    aggregate text NOT NULL,
    subject text NOT NULL,
    version integer NOT NULL,
    known_since timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_aggregate_versions PRIMARY KEY (consumer, aggregate, subject)
) WITH (fillfactor = 70)""",
    "CREATE INDEX ix_aggregate_versions_known_since ON aggregate_versions (known_since)",
)

_DEFERRED: Final = (
    """CREATE TABLE deferred_messages (
    id uuid CONSTRAINT pk_deferred_messages PRIMARY KEY,
    consumer text NOT NULL,
    aggregate text NOT NULL,
    subject text NOT NULL,
    version integer NOT NULL,
    body bytea NOT NULL,
    properties jsonb NOT NULL,
    deferred_at timestamptz NOT NULL DEFAULT now()
)""",
    "CREATE INDEX ix_deferred_messages_aggregate ON deferred_messages (consumer, aggregate, subject, version)",
)

OUTBOX_PARTITIONS: Final = 8
_OUTBOX_COLUMNS: Final = "id, event_id, type, subject, version, occurred_at, data, traceparent"
_OUTBOX_STORAGE: Final = (
    "WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0)"
)
_PARTITIONED_OUTBOX: Final = """CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY,
    event_id uuid NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    version integer NOT NULL,
    occurred_at timestamptz NOT NULL,
    data jsonb NOT NULL,
    traceparent text,
    CONSTRAINT pk_outbox PRIMARY KEY (id, subject)
) PARTITION BY HASH (subject)"""

_UNSENDABLE: Final = """CREATE TABLE unsendable_events (
    outbox_id bigint CONSTRAINT pk_unsendable_events PRIMARY KEY,
    event_id uuid NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    version integer NOT NULL,
    occurred_at timestamptz NOT NULL,
    data jsonb NOT NULL,
    traceparent text,
    error text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    skipped_at timestamptz,
    reason text,
    CONSTRAINT ck_unsendable_events_skipped CHECK ((skipped_at IS NULL) = (reason IS NULL))
)"""

_AUDIT: Final = (
    """CREATE TABLE audit_records (
    id uuid CONSTRAINT pk_audit_records PRIMARY KEY,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail text,
    request_id text
)""",
    "CREATE INDEX ix_audit_records_recorded_at ON audit_records (recorded_at, id)",
)

_POSITIONS: Final = "CREATE INDEX{} ix_event_log_position ON {}event_log (position)"
LOG_PARTITIONS: Final = """
    SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'event_log'::regclass AND relkind = 'r'"""
INVALID_POSITIONS: Final = """
    SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE NOT indisvalid AND relname LIKE 'event\\_log\\_%\\_position\\_idx'"""


class MigrationContext(Protocol):
    def autocommit_block(self) -> AbstractContextManager[None]: ...


class Operations(Protocol):
    def execute(self, sqltext: str, /) -> None: ...

    def get_bind(self) -> Any: ...

    def get_context(self) -> MigrationContext: ...


def create_outbox(op: Operations) -> None:
    for statement in _OUTBOX:
        op.execute(statement)


def drop_outbox(op: Operations) -> None:
    op.execute("DROP TABLE event_log, outbox")


def partition_outbox(op: Operations) -> None:
    """Replaces the outbox by one in hash partitions, with its waiting rows, their ids and the next id.

    Writers and the relay wait meanwhile: for as long as it takes to copy what is not published.
    """
    partitions = (
        f"CREATE TABLE outbox_p{n} PARTITION OF outbox"
        f" FOR VALUES WITH (MODULUS {OUTBOX_PARTITIONS}, REMAINDER {n}) {_OUTBOX_STORAGE}"
        for n in range(OUTBOX_PARTITIONS)
    )
    _replace_outbox(op, _PARTITIONED_OUTBOX, *partitions)


def merge_outbox(op: Operations) -> None:
    """The reverse of `partition_outbox`."""
    _replace_outbox(op, _OUTBOX[0])


def _replace_outbox(op: Operations, *statements: str) -> None:
    # Locked first: a transaction that still writes to the old table ends before its rows are copied. Writers queue
    # behind this lock, so it waits for less time than a request may take.
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
    op.execute("ALTER TABLE outbox RENAME TO old_outbox")
    op.execute("ALTER TABLE old_outbox RENAME CONSTRAINT pk_outbox TO pk_old_outbox")
    op.execute("ALTER SEQUENCE outbox_id_seq RENAME TO old_outbox_id_seq")
    for statement in statements:
        op.execute(statement)
    op.execute(
        f"INSERT INTO outbox ({_OUTBOX_COLUMNS}) OVERRIDING SYSTEM VALUE"  # noqa: S608 - only constants are inserted
        f" SELECT {_OUTBOX_COLUMNS} FROM old_outbox ORDER BY id"
    )
    op.execute("SELECT setval('outbox_id_seq', last_value, is_called) FROM old_outbox_id_seq")
    op.execute("DROP TABLE old_outbox")


def create_inbox(op: Operations) -> None:
    for statement in _INBOX:
        op.execute(statement)


def drop_inbox(op: Operations) -> None:
    op.execute("DROP TABLE parked_messages, inbox")


def create_aggregate_versions(op: Operations) -> None:
    for statement in _VERSIONS:
        op.execute(statement)


def drop_aggregate_versions(op: Operations) -> None:
    op.execute("DROP TABLE aggregate_versions")


def create_deferred(op: Operations) -> None:
    for statement in _DEFERRED:
        op.execute(statement)


def drop_deferred(op: Operations) -> None:
    op.execute("DROP TABLE deferred_messages")


def create_log_positions(op: Operations) -> None:
    """For a log that is still empty."""
    op.execute(_POSITIONS.format("", ""))


def add_log_positions(op: Any) -> None:
    """Indexes the positions of a log with history, partition by partition, while the relay appends to it.

    Commits what was done before, and may be repeated after a failure. Partitions that the relay attaches meanwhile get
    their index by themselves, under the same name.
    """
    with op.get_context().autocommit_block():
        op.execute(_POSITIONS.format(" IF NOT EXISTS", "ONLY "))
        for index in op.get_bind().exec_driver_sql(INVALID_POSITIONS).scalars().all():
            op.execute(f"DROP INDEX CONCURRENTLY {index}")
        for partition in op.get_bind().exec_driver_sql(LOG_PARTITIONS).scalars().all():
            index = f"{partition}_position_idx"
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {index} ON {partition} (position)")
            op.execute(f"ALTER INDEX ix_event_log_position ATTACH PARTITION {index}")


def drop_log_positions(op: Operations) -> None:
    op.execute("DROP INDEX ix_event_log_position")


def create_unsendable(op: Operations) -> None:
    op.execute(_UNSENDABLE)


def drop_unsendable(op: Operations) -> None:
    op.execute("DROP TABLE unsendable_events")


def create_audit(op: Operations) -> None:
    for statement in _AUDIT:
        op.execute(statement)


def drop_audit(op: Operations) -> None:
    op.execute("DROP TABLE audit_records")
