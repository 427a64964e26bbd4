"""The driver's own connections: opened when needed, kept while good, replaced when lost."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Integer, bindparam, literal, select

from common.db.driver import Endpoint
from common.db.driver_pool import DriverPool, DriverStatement


@pytest.fixture
async def pool(postgres_server: str) -> AsyncIterator[DriverPool]:
    pool = DriverPool(Endpoint(postgres_server), size=2, timeout=5, name="test-driver")
    yield pool
    await pool.close()


async def backend(pool: DriverPool) -> Any:
    [row] = await pool.fetch("SELECT pg_backend_pid() AS pid")
    return row["pid"]


async def test_a_core_statement_runs_with_named_values_and_its_own_constants(pool: DriverPool) -> None:
    statement = DriverStatement(
        select((bindparam("left", type_=Integer()) - bindparam("right", type_=Integer()) + literal(10)).label("result"))
    )
    for left, right in ((5, 3), (3, 5)):
        [row] = await pool.run(statement, left=left, right=right)
        assert row["result"] == left - right + 10


async def test_consecutive_statements_run_on_the_same_connection(pool: DriverPool) -> None:
    assert len({await backend(pool) for _ in range(5)}) == 1


async def test_concurrent_statements_share_the_pools_connections(pool: DriverPool) -> None:
    slow = "SELECT pg_backend_pid() AS pid FROM pg_sleep(0.02)"
    answers = await asyncio.gather(*(pool.fetch(slow) for _ in range(8)))
    assert len({rows[0]["pid"] for rows in answers}) == 2


async def test_a_failed_statement_keeps_its_connection(pool: DriverPool) -> None:
    before = await backend(pool)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await pool.fetch("SELECT 1 / 0")
    assert await backend(pool) == before


async def test_a_statement_is_a_transaction_of_its_own(pool: DriverPool) -> None:
    [first] = await pool.fetch("SELECT txid_current() AS id")
    [second] = await pool.fetch("SELECT txid_current() AS id")
    assert first["id"] != second["id"]


async def test_a_lost_connection_is_replaced_without_an_error(pool: DriverPool, postgres_server: str) -> None:
    lost = await backend(pool)
    admin = await asyncpg.connect(postgres_server)
    await admin.execute("SELECT pg_terminate_backend($1, 5000)", lost)
    await admin.close()
    assert await backend(pool) != lost


async def test_a_statement_that_takes_too_long_times_out_and_leaves_the_pool_usable(postgres_server: str) -> None:
    pool = DriverPool(Endpoint(postgres_server), size=1, timeout=0.5, name="test-driver")
    waiting = asyncio.gather(*(pool.fetch("SELECT pg_sleep(30)") for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in await waiting] == [TimeoutError] * 3
    assert await backend(pool)
    await pool.close()


async def test_an_unreachable_server_is_a_connection_error(unused_tcp_port: int) -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/x"
    pool = DriverPool(Endpoint(nowhere), size=1, timeout=5, name="test-driver")
    with pytest.raises(OSError):
        await pool.fetch("SELECT 1")
