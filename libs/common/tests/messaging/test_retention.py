"""Expired rows and partitions are deleted, and nothing else is."""

import asyncio
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import asyncpg
import pytest
from sqlalchemy import func, select, text

from common.db import daily_partitions, expired_rows
from common.db import database as database_module
from common.db.database import Database
from common.db.expired_rows import delete_expired, expired_before
from common.messaging import event_log, retention
from common.messaging.inbox import default_partition, inbox
from common.messaging.parked import parked_messages
from common.testing.plugin import eventually

HISTORY = timedelta(days=30)


async def test_history_past_retention_is_dropped_by_whole_days_and_the_rest_stays(database: Database) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    connection = await asyncpg.connect(database.dsn)
    try:
        for days in (31, 30):
            day = today - timedelta(days=days)
            name, end = f"event_log_p{day:%Y%m%d}", day + timedelta(days=1)
            await connection.execute(
                f"CREATE TABLE {name} PARTITION OF event_log FOR VALUES FROM ('{day}') TO ('{end}')"
            )
            await connection.execute(
                "INSERT INTO event_log (published_at, event_id, type, subject, version, occurred_at, data)"
                " VALUES ($1, gen_random_uuid(), 'a.b.c.v1', 's', 1, $1, '{}')",
                day + timedelta(hours=12),
            )
        await _log(connection, today + timedelta(days=9))  # a partition's age is also that to the newest event
        await event_log.maintain(connection, HISTORY.days)
        kept = await connection.fetch(
            "SELECT tableoid::regclass::text AS partition, published_at FROM event_log WHERE published_at < now()"
        )
        last_kept = today - timedelta(days=30)
        assert [tuple(row) for row in kept] == [(f"event_log_p{last_kept:%Y%m%d}", last_kept + timedelta(hours=12))]
        assert (
            await connection.fetchval("SELECT to_regclass($1)", f"event_log_p{today - timedelta(days=31):%Y%m%d}")
            is None
        )
    finally:
        await connection.close()


async def test_expired_history_in_the_default_partition_is_deleted_too(database: Database) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    connection = await asyncpg.connect(database.dsn)
    try:
        for days in (31, 30):
            await connection.execute(
                "INSERT INTO event_log (published_at, event_id, type, subject, version, occurred_at, data)"
                " VALUES ($1, gen_random_uuid(), 'a.b.c.v1', 's', 1, $1, '{}')",
                today - timedelta(days=days) + timedelta(hours=12),
            )
        await _log(connection, today + timedelta(days=9))
        await event_log.maintain(connection, HISTORY.days)
        kept = await connection.fetch("SELECT published_at FROM event_log WHERE published_at < now()")
        assert [row["published_at"] for row in kept] == [today - timedelta(days=30) + timedelta(hours=12)]
    finally:
        await connection.close()


class Ahead(datetime):
    """The clock of a host that is 40 days ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Ahead":
        return super().now(tz) + timedelta(days=40)


def _host_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (daily_partitions, database_module):
        monkeypatch.setattr(module, "datetime", Ahead)


async def test_a_relay_whose_hosts_clock_is_40_days_ahead_drops_no_history(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await asyncpg.connect(database.dsn)
    try:
        await event_log.maintain(connection, HISTORY.days)
        await _log(connection, datetime.now(UTC))
        before = await _partitions(connection)
        _host_is_ahead(monkeypatch)
        await event_log.maintain(connection, HISTORY.days)
        assert await _partitions(connection) == before
        assert await connection.fetchval("SELECT count(*) FROM event_log") == 1
    finally:
        await connection.close()


async def test_history_is_dropped_a_day_at_a_time_and_not_if_it_is_recent_by_the_logs_own_times(
    database: Database,
) -> None:
    """As after a failover to a server whose clock is ahead."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    connection = await asyncpg.connect(database.dsn)
    try:
        for days in range(42, 37, -1):
            day = today - timedelta(days=days)
            await connection.execute(
                f"CREATE TABLE event_log_p{day:%Y%m%d} PARTITION OF event_log"
                f" FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
            )
            await _log(connection, day + timedelta(hours=12))
        counts = []
        for newest in (None, None, today, None, None):
            if newest is not None:
                await _log(connection, newest)
            await event_log.maintain(connection, HISTORY.days)
            counts.append(await connection.fetchval("SELECT count(*) FROM event_log"))
        assert counts == [5, 5, 5, 4, 3]
    finally:
        await connection.close()


async def test_rows_expire_by_the_servers_clock_and_a_day_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO inbox (consumer, event_id, received_at)"
                " SELECT 'c', gen_random_uuid(), now() - days * interval '1 day' FROM generate_series(1, 40) AS days"
            )
        )

    async def rows() -> int:
        async with database.transaction() as session:
            return int(await session.scalar(text("SELECT count(*) FROM inbox")))

    _host_is_ahead(monkeypatch)
    async with retention.deleting_expired(database, [default_partition.c.received_at], HISTORY):

        async def one_deleted() -> bool:
            return await rows() < 40

        await eventually(one_deleted)
    assert await rows() == 39


async def test_nothing_expires_while_nothing_newer_is_received(database: Database) -> None:
    """As with a server whose clock has jumped ahead: by it, all rows would be old."""

    async def insert(days: int) -> None:
        async with database.transaction() as session:
            await session.execute(
                text(
                    "INSERT INTO inbox (consumer, event_id, received_at)"
                    " VALUES ('c', gen_random_uuid(), now() - :days * interval '1 day')"
                ),
                {"days": days},
            )

    async def oldest() -> datetime | None:
        async with database.transaction() as session:
            select_oldest, newest = select(func.min(inbox.c.received_at)), select(func.max(inbox.c.received_at))
            return await expired_before(session, HISTORY, oldest=select_oldest, newest=newest)

    assert await oldest() is None
    await insert(100)
    await insert(80)
    assert (await oldest() or datetime.now(UTC)) < datetime.now(UTC) - timedelta(days=105)
    await insert(0)
    assert timedelta(days=98) < datetime.now(UTC) - (await oldest() or datetime.now(UTC)) < timedelta(days=100)


async def _log(connection: Any, published_at: datetime) -> None:
    await connection.execute(
        "INSERT INTO event_log (published_at, event_id, type, subject, version, occurred_at, data)"
        " VALUES ($1, gen_random_uuid(), 'a.b.c.v1', 's', 1, $1, '{}')",
        published_at,
    )


async def test_an_inbox_row_is_kept_while_a_replay_could_repeat_its_event_and_deleted_after_that(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired_rows, "CHUNK", 100)
    async with database.transaction() as session:
        for age, rows in (("1 minute", 10), ("30 days 1 hour", 10), ("37 days 1 hour", 250)):
            await session.execute(
                text(
                    "INSERT INTO inbox (consumer, event_id, received_at)"
                    " SELECT 'c', gen_random_uuid(), now() - CAST(:age AS text)::interval"
                    " FROM generate_series(1, :rows)"
                ),
                {"age": age, "rows": rows},
            )

    async def remaining() -> bool:
        async with database.transaction() as session:
            return bool((await session.execute(text("SELECT count(*) FROM inbox"))).scalar_one() == 20)

    async with retention.deleting_expired(database, [default_partition.c.received_at], HISTORY):
        await eventually(remaining)
    assert await delete_expired(database, default_partition.c.received_at, HISTORY + retention.MARGIN) == 0
    assert await remaining()


async def test_a_parked_message_is_deleted_long_after_its_resolution_and_never_before_it(database: Database) -> None:
    async with database.transaction() as session:
        for resolved in (None, "1 day", "39 days"):
            await session.execute(
                text(
                    "INSERT INTO parked_messages (id, consumer, cause, attempts, body, properties, parked_at,"
                    " resolved_at, resolution) VALUES (gen_random_uuid(), 'c', '', 1, CAST(:body AS bytea), '{}',"
                    " now() - interval '99 days', now() - CAST(:ago AS text)::interval, :resolution)"
                ),
                {"body": str(resolved).encode(), "ago": resolved, "resolution": resolved and "replayed"},
            )
    assert await delete_expired(database, parked_messages.c.resolved_at, HISTORY + retention.MARGIN) == 1
    async with database.transaction() as session:
        left = await session.scalars(text("SELECT convert_from(body, 'UTF8') FROM parked_messages ORDER BY body"))
        assert list(left) == ["1 day", "None"]


async def test_a_running_backup_postpones_retention_and_delays_no_relay(database: Database) -> None:
    """`pg_dump` locks every table until it is done, for hours: the relay cannot wait for that."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    old = today - timedelta(days=31)
    connection, backup = await asyncpg.connect(database.dsn), await asyncpg.connect(database.dsn)
    try:
        await connection.execute(
            f"CREATE TABLE event_log_p{old:%Y%m%d} PARTITION OF event_log"
            f" FOR VALUES FROM ('{old}') TO ('{old + timedelta(days=1)}')"
        )
        async with backup.transaction():
            await backup.execute("LOCK TABLE event_log IN ACCESS SHARE MODE")
            async with asyncio.timeout(20):
                await event_log.maintain(connection, HISTORY.days)
            assert await _partitions(backup) == ["event_log_default", f"event_log_p{old:%Y%m%d}"]
        await event_log.maintain(connection, HISTORY.days)
        days = [f"event_log_p{today + timedelta(days=ahead):%Y%m%d}" for ahead in range(3)]
        assert await _partitions(connection) == ["event_log_default", *days]
    finally:
        await backup.close()
        await connection.close()


async def _partitions(connection: Any) -> list[str]:
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'event_log'::regclass"
    )
    return sorted(row["name"] for row in rows)
