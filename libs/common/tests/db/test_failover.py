"""After a failover, connections that lead to a server that refuses writes are dropped, in every pool."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from common.db.database import Database
from common.db.driver_pool import DriverPool
from common.db.group_commit import GroupCommit
from common.db.outages import is_outage

WRITE = "CREATE TABLE IF NOT EXISTS written (id int)"
CONNECTIONS = 3


@contextlib.asynccontextmanager
async def read_only(database: Database, server: str) -> AsyncIterator[None]:
    """New connections of the database refuse writes within the block, as at a standby; those made there stay so."""
    name = database.engine.url.database
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name)
        yield
        await admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    finally:
        await admin.close()


async def write(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text(WRITE))


async def fill(database: Database) -> None:
    """Opens several of the pool's connections, without a write."""

    async def read() -> None:
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(0.05)"))

    await asyncio.gather(*(read() for _ in range(CONNECTIONS)))


async def test_one_refused_write_drops_every_connection_of_the_pool(database: Database, postgres_server: str) -> None:
    async with read_only(database, postgres_server):
        await database.engine.dispose()
        await fill(database)
        with pytest.raises(DBAPIError) as refused:
            await write(database)
        assert is_outage(refused.value)
    for _ in range(CONNECTIONS):
        await write(database)


async def test_a_ping_refuses_a_server_without_writes_and_drops_the_connections_to_it(
    database: Database, postgres_server: str
) -> None:
    async with read_only(database, postgres_server):
        await database.engine.dispose()
        await fill(database)
        with pytest.raises(ConnectionError):
            await database.ping()
    await database.ping()
    for _ in range(CONNECTIONS):
        await write(database)


async def test_one_refused_write_drops_every_connection_of_the_drivers_pool(
    database: Database, postgres_server: str
) -> None:
    pool = DriverPool(database.endpoint, size=CONNECTIONS, timeout=5, name="test-failover")
    try:
        async with read_only(database, postgres_server):
            await asyncio.gather(*(pool.fetch("SELECT pg_sleep(0.05)") for _ in range(CONNECTIONS)))
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await pool.fetch(WRITE)
        for _ in range(CONNECTIONS):
            await pool.fetch(WRITE)
    finally:
        await pool.close()


async def test_a_group_refused_by_a_server_without_writes_fails_at_once() -> None:
    groups: list[int] = []

    async def refuse(items: object) -> list[None]:
        groups.append(len(list(items)))  # type: ignore[call-overload]
        raise asyncpg.ReadOnlySQLTransactionError("…")

    place = GroupCommit[int, None](refuse, size=10, timeout=5)
    outcomes = await asyncio.gather(*(place(number) for number in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncpg.ReadOnlySQLTransactionError] * 5
    assert groups == [5]


async def test_a_plan_cached_for_another_schema_fails_one_transaction_at_most(
    database: Database,
) -> None:
    async with database.transaction() as session:
        await session.execute(text("CREATE TABLE planned (a int)"))
        await session.execute(text("INSERT INTO planned VALUES (1)"))

    async def read() -> None:
        async with database.transaction() as session:
            for _ in range(2):  # the second time in a transaction, a changed result type is an error
                await session.execute(text("SELECT * FROM planned"))

    await fill(database)
    await read()
    admin = await asyncpg.connect(database.dsn)
    await admin.execute("ALTER TABLE planned ADD COLUMN b int")
    await admin.close()
    outcomes = [(await asyncio.gather(read(), return_exceptions=True))[0] for _ in range(CONNECTIONS + 1)]
    failures = [outcome for outcome in outcomes if outcome is not None]
    assert len(failures) <= 1
    assert all(is_outage(failure) for failure in failures)
