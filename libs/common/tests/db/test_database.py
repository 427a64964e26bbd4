import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from common.db.database import Database, notify_after_commit
from common.testing.plugin import eventually


async def test_a_database_error_does_not_contain_the_parameters(database: Database) -> None:
    with pytest.raises(DBAPIError) as raised:
        async with database.transaction() as session:
            await session.execute(text("SELECT no_such_function(:secret)"), {"secret": "hunter2"})
    assert "hunter2" not in str(raised.value)


async def test_listeners_are_notified_only_after_a_commit(database: Database) -> None:
    received: list[str] = []
    connection = await asyncpg.connect(database.dsn)
    try:
        for channel in ("letters", "parcels"):
            await connection.add_listener(channel, lambda *call: received.append(call[2]))
        with pytest.raises(RuntimeError):
            async with database.transaction() as session:
                notify_after_commit(session, "parcels")
                raise RuntimeError
        async with database.transaction() as session:
            notify_after_commit(session, "letters")
            await connection.execute("SELECT 1")
            assert received == []
        await eventually(lambda: _any(received))
        assert received == ["letters"]
    finally:
        await connection.close()


async def _any(received: list[str]) -> bool:
    return bool(received)
