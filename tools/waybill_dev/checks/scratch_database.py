"""An empty database on the server of a running stack, to compare a service's models and migrations in."""

import asyncpg

from waybill_dev.base.state import State
from waybill_dev.supervision import control


async def create(state: State, name: str) -> str:
    """Creates the database `name`, in place of one left by an earlier run. Returns its URL."""
    server: str = control.call(state, "status")["postgres"]["url"]
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return f"{server.rpartition('/')[0]}/{name}"
