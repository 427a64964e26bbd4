"""Deletes rows past their retention. Every API replica does it: it runs too rarely to need coordination."""

from typing import Final

from common.db.database import Database
from users import queries
from users.credentials import throttle

INTERVAL: Final = 600.0
"""Seconds."""


async def delete_expired(database: Database) -> None:
    async with database.transaction() as session:
        await throttle.delete_expired(session)
        await queries.delete_expired(session)
