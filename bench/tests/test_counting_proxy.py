"""What a client sends to a real PostgreSQL is counted exactly."""

from pathlib import Path

import asyncpg
import pytest
from bench.counting_proxy import Counter, Transaction, counting

from common.testing.plugin import MakeDatabase, eventually

MIGRATIONS = Path(__file__).parents[2] / "libs/common/tests/migrations"


async def ended(counter: Counter, count: int) -> list[Transaction]:
    async def are_counted() -> bool:
        return len(counter.transactions) >= count

    await eventually(are_counted)
    return counter.transactions


async def test_a_transaction_is_counted_with_its_control_statements_rows_and_round_trips(
    make_database: MakeDatabase,
) -> None:
    async with counting(await make_database(MIGRATIONS)) as (url, counter):
        connection = await asyncpg.connect(url, ssl=False)
        async with connection.transaction():
            await connection.execute("CREATE TABLE numbers (number int)")
            await connection.execute("INSERT INTO numbers SELECT generate_series(1, 7)")
        [transaction] = await ended(counter, 1)
        assert [statement.is_control for statement in transaction.statements] == [True, False, False, True]
        assert transaction.round_trips == 4
        assert transaction.rows_of("INSERT INTO numbers") == 7
        await connection.close()


async def test_a_statement_is_prepared_once_and_many_executions_share_a_round_trip(make_database: MakeDatabase) -> None:
    async with counting(await make_database(MIGRATIONS)) as (url, counter):
        connection = await asyncpg.connect(url, ssl=False)
        prepared = await connection.prepare("SELECT $1::int")
        await prepared.fetchval(1)
        await prepared.fetchval(1)
        await prepared.executemany([(1,), (2,), (3,)])
        first, second, many = await ended(counter, 3)
        assert (len(first.statements), first.round_trips) == (1, 2)  # one to prepare it
        assert (len(second.statements), second.round_trips) == (1, 1)
        assert (len(many.statements), many.round_trips) == (3, 1)
        await connection.close()


async def test_what_a_rolled_back_transaction_sent_is_counted_too(make_database: MakeDatabase) -> None:
    async with counting(await make_database(MIGRATIONS)) as (url, counter):
        connection = await asyncpg.connect(url, ssl=False)
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with connection.transaction():
                await connection.fetchval("SELECT 1 / 0")
        transactions = await ended(counter, 1)
        assert [len(transaction.statements) for transaction in transactions] == [3]
        await connection.close()
