"""One role and one database per service, and the revisions of code and database."""

from collections.abc import Mapping
from pathlib import Path

import asyncpg


async def ensure_databases(server_url: str, passwords: Mapping[str, str]) -> None:
    """Creates what is missing. `passwords` maps each service, which names its role and its database.

    `server_url` belongs to a role that may create roles and databases.
    """
    connection = await asyncpg.connect(server_url, timeout=10)
    try:
        roles = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
        databases = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
        for name, password in passwords.items():
            verb = "ALTER" if name in roles else "CREATE"
            # Names are the services', passwords URL-safe: neither can break out of its quotes.
            await connection.execute(f"{verb} ROLE \"{name}\" LOGIN PASSWORD '{password}'")
            if name not in databases:
                await connection.execute(f'GRANT "{name}" TO CURRENT_USER')
                await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
                await connection.execute(f'REVOKE CONNECT, TEMPORARY ON DATABASE "{name}" FROM PUBLIC')
    finally:
        await connection.close()


async def identity(server_url: str) -> str:
    """The cluster's unique identifier."""
    connection = await asyncpg.connect(server_url, timeout=10)
    try:
        return str(await connection.fetchval("SELECT system_identifier FROM pg_control_system()"))
    finally:
        await connection.close()


def newest_revision(versions: Path) -> str:
    """The revision of the newest file in a folder of migrations: `0001_initial.py` has revision `0001`."""
    return max((file.name.partition("_")[0] for file in versions.glob("[0-9]*_*.py")), default="")


async def current_revision(database_url: str) -> str:
    """The revision of the database's schema. "" if it has none."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return ""
        return await connection.fetchval("SELECT version_num FROM alembic_version") or ""
    finally:
        await connection.close()
