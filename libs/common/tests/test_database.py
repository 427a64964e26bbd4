import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from common.database import Database


async def test_an_error_of_the_database_does_not_tell_the_parameters(database: Database) -> None:
    with pytest.raises(DBAPIError) as raised:
        async with database.transaction() as session:
            await session.execute(text("SELECT no_such_function(:secret)"), {"secret": "hunter2"})
    assert "hunter2" not in str(raised.value)
