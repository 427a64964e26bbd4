"""Which errors count as an outage; raised by a real server where possible."""

import asyncio
import threading

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from common.db.outages import is_outage, is_unstorable, ran_out_of_time


@pytest.mark.parametrize(
    "state",
    [
        asyncpg.ObjectNotInPrerequisiteStateError,  # "database … is not currently accepting connections"
        asyncpg.AdminShutdownError,
        asyncpg.CannotConnectNowError,
        asyncpg.DeadlockDetectedError,
        asyncpg.TooManyConnectionsError,
    ],
)
def test_a_temporary_server_error_is_an_outage(state: type[Exception]) -> None:
    assert is_outage(state("…"))


@pytest.mark.parametrize("state", [asyncpg.UndefinedTableError, asyncpg.UniqueViolationError, asyncpg.DataError])
def test_an_error_that_a_retry_cannot_fix_is_no_outage(state: type[Exception]) -> None:
    assert not is_outage(state("…"))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 2147483648::bigint::integer",
        r"""SELECT '{"a": "\u0000"}'::jsonb""",
        "SELECT 'NaN'::jsonb",
        "SELECT '9999-12-31'::timestamptz + interval '300000 years'",
    ],
)
async def test_a_value_that_the_database_cannot_hold_is_known_as_such(postgres_server: str, statement: str) -> None:
    engine = create_async_engine(postgres_server.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as raised:
            await connection.exec_driver_sql(statement)
    await engine.dispose()
    assert is_unstorable(raised.value)
    assert not is_outage(raised.value)


@pytest.mark.parametrize(
    "error", [asyncpg.CheckViolationError("…"), asyncpg.AdminShutdownError("…"), ValueError(), TimeoutError()]
)
def test_any_other_error_may_pass(error: Exception) -> None:
    assert not is_unstorable(error)


def end_backend(server: str, pid: int) -> None:
    """Ends a backend while this event loop stands still: the server's last message and the end wait unread."""

    async def end() -> None:
        admin = await asyncpg.connect(server)
        await admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        await admin.close()

    thread = threading.Thread(target=lambda: asyncio.run(end()))
    thread.start()
    thread.join()


async def read_the_last_message() -> None:
    """Two turns of the loop: one finds the socket readable, the next reads the message and not yet the end."""
    for _ in range(2):
        await asyncio.sleep(0)


async def test_a_statement_between_the_servers_last_message_and_the_end_of_the_connection_is_an_outage(
    postgres_server: str,
) -> None:
    connection = await asyncpg.connect(postgres_server)
    end_backend(postgres_server, connection.get_server_pid())
    await read_the_last_message()
    with pytest.raises(asyncpg.InternalClientError) as raised:
        await connection.fetch("SELECT 1")
    assert is_outage(raised.value)


async def test_the_same_statement_through_sqlalchemy_is_an_outage(postgres_server: str) -> None:
    engine = create_async_engine(postgres_server.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        end_backend(postgres_server, pid)
        await read_the_last_message()
        with pytest.raises(Exception, match="another operation") as raised:
            await connection.execute(text("SELECT 1"))
        assert is_outage(raised.value)
    await engine.dispose()


async def test_a_statement_timed_out_by_the_driver_or_the_server_counts_as_a_timeout(
    postgres_server: str,
) -> None:
    engine = create_async_engine(
        postgres_server.replace("postgresql://", "postgresql+asyncpg://"), connect_args={"command_timeout": 0.1}
    )
    try:
        for own_limit in ("0", "50ms"):
            async with engine.connect() as connection:
                await connection.execute(text(f"SET statement_timeout = '{own_limit}'"))
                with pytest.raises((TimeoutError, DBAPIError)) as raised:
                    await connection.execute(text("SELECT pg_sleep(60)"))
            assert is_outage(raised.value)
            assert ran_out_of_time(raised.value)
        assert not ran_out_of_time(asyncpg.AdminShutdownError("…"))
    finally:
        await engine.dispose()
