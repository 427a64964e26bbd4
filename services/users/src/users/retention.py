"""Deletes rows that are past their retention. Every API replica does it: it is too rare to need coordination."""

from typing import Final

from common.db.database import Database
from users import queries
from users.credentials import throttle

EVERY: Final = 600.0


async def delete_expired(database: Database) -> None:
    async with database.transaction() as session:
        await throttle.delete_expired(session)
        await queries.delete_expired(session)
