"""Which migrations the code and a database have: compared by their numbers, without a start of Alembic."""

import re
from pathlib import Path

import asyncpg


def newest_revision(folder: Path) -> str:
    """The newest revision of the code, from the numbers in the files' names. "" if there is none."""
    names = [match for path in (folder / "versions").glob("*.py") if (match := re.match(r"\d{4}", path.name))]
    return max((match.group() for match in names), default="")


async def current_revision(connection: asyncpg.Connection) -> str:
    """The revision of the database. "" if it has none."""
    try:
        return await connection.fetchval("SELECT version_num FROM alembic_version") or ""
    except asyncpg.UndefinedTableError:
        return ""
