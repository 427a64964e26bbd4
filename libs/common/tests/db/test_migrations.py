"""Migrations while a service runs, and while other processes wait to migrate."""

import asyncio
import shutil
import sys
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from common.db.migrations import upgrade
from common.messaging import event_log
from common.testing.plugin import MakeDatabase, eventually

FOLDER = Path(__file__).parents[1] / "migrations"
HEAD = """
from alembic import op

from common.db import shared_tables

revision, down_revision = "0003", "0002"


def upgrade():
"""
# It waits for the test, which holds the lock that it requests.
INDEX = """
    with op.get_context().autocommit_block():
        op.execute("SELECT pg_advisory_lock(1), pg_advisory_unlock(1)")
        op.execute("CREATE INDEX CONCURRENTLY ix_effects_note ON effects (note)")
"""
# The migrating process waits for the test. The other one waits for a lock as well (as it must not), or has been
# connected for long and does not.
BOTH_WAIT = """
    SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (wait_event = 'advisory' OR backend_start < clock_timestamp() - interval '5 seconds')
"""
UPGRADE = """
import pathlib, sys
from common.db.migrations import upgrade
from common.messaging import event_log

upgrade(pathlib.Path(sys.argv[1]), sys.argv[2])
"""
# As a log from before the index, in whose migration an index of a partition was left invalid.
POSITIONS = """
    shared_tables.drop_log_positions(op)
    op.execute("CREATE INDEX event_log_default_position_idx ON event_log_default (position)")
    op.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'event_log_default_position_idx'::regclass")
    shared_tables.add_log_positions(op)
"""
EXCLUSIVE = """
    op.execute("ALTER TABLE effects ADD COLUMN number integer")
"""


def with_next(folder: Path, revision: str) -> Path:
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "0003_next.py").write_text(HEAD + revision)
    return folder


@pytest.mark.slow
async def test_an_index_is_built_concurrently_while_another_process_waits_to_migrate(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url, folder = await make_database(FOLDER), with_next(tmp_path / "migrations", INDEX)
    # Alembic's context is global to a process, so each migrates in its own.
    words = (sys.executable, "-c", UPGRADE, str(folder), url)
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT pg_advisory_lock(1)")
    processes = [await asyncio.create_subprocess_exec(*words) for _ in range(2)]
    try:
        await eventually(lambda: connection.fetchval(BOTH_WAIT), within=60)
        await connection.execute("SELECT pg_advisory_unlock(1)")
        async with asyncio.timeout(120):
            assert [await process.wait() for process in processes] == [0, 0]
        assert await connection.fetchval(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_effects_note'::regclass"
        )
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await connection.close()


@pytest.mark.slow
async def test_a_migration_does_not_block_others_behind_a_long_transaction(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url, folder = await make_database(FOLDER), with_next(tmp_path / "migrations", EXCLUSIVE)
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM effects")
            with pytest.raises(Exception, match="lock timeout"):
                await asyncio.to_thread(upgrade, folder, url)
        assert await asyncio.to_thread(upgrade, folder, url)
    finally:
        await connection.close()


async def test_an_event_log_with_history_gets_its_index_of_positions_partition_by_partition(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url, folder = await make_database(FOLDER), with_next(tmp_path / "migrations", POSITIONS)
    connection = await asyncpg.connect(url)
    try:
        await event_log.maintain(connection, 30)
        await connection.execute(
            "INSERT INTO event_log (published_at, event_id, type, subject, version, occurred_at, data)"
            " SELECT now() - n * interval '1 day', gen_random_uuid(), 'a.b.c.v1', 's', 1, now(), '{}'"
            " FROM generate_series(0, 5) AS n"
        )
        assert await asyncio.to_thread(upgrade, folder, url)
        indexes = await connection.fetch(
            "SELECT indexrelid::regclass::text AS name, indisvalid FROM pg_index"
            " WHERE indexrelid::regclass::text ~ 'event_log.*position' AND NOT indisprimary"
        )
        partitions = await connection.fetchval(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'event_log'::regclass"
        )
        assert partitions == 4
        assert len(indexes) == 1 + partitions
        assert all(index["indisvalid"] for index in indexes), "the parent's is valid once all are attached"
    finally:
        await connection.close()


async def test_a_database_that_a_newer_version_has_migrated_is_left_alone_with_one_warning(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url, folder = await make_database(FOLDER), with_next(tmp_path / "migrations", EXCLUSIVE)
    assert await asyncio.to_thread(upgrade, folder, url)
    with capture_logs() as logs:
        assert not await asyncio.to_thread(upgrade, FOLDER, url)
    assert [(line["log_level"], line["database"], line["code"]) for line in logs] == [("warning", "0003", "0002")]
