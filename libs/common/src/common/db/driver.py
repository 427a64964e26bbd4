"""asyncpg: the addresses it accepts, a connection, and the errors it raises."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import asyncpg
from sqlalchemy.engine import make_url

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises. `InternalClientError` is no defect: a statement gets it between the server's last message on
a connection and the driver's noticing that the connection was closed."""


def driver_dsn(url: str) -> str:
    """The address as asyncpg accepts it, from one with SQLAlchemy's driver name."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextlib.asynccontextmanager
async def driver_connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for the length of the block. Raises `TimeoutError` if the server does not answer within 10 s."""
    connection = await asyncpg.connect(driver_dsn(url), timeout=10)
    try:
        yield connection
    finally:
        await connection.close()
