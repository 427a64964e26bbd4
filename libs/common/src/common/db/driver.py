"""asyncpg: a connection, the addresses it accepts, its errors, and which of them make a connection unusable."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import asyncpg
from sqlalchemy.engine import make_url

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises. `InternalClientError` is no defect: a statement gets it between the server's last message on
a connection and the driver's noticing that the connection was closed."""
READ_ONLY: Final = "SELECT current_setting('transaction_read_only')::boolean"
"""Whether the server refuses writes: a standby answers any other query."""
_UNUSABLE: Final = ("08", "57P", "25006")
"""Beginnings of SQLSTATEs (PostgreSQL, appendix A): connection exceptions, a server that ends or starts, and a server
that refuses writes."""


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


def makes_unusable(error: BaseException | None) -> bool:
    """Whether the error is about its connection, so that the next statement needs another connection.

    After a failover a connection may still lead to the old primary, which only reads, or have plans cached for a schema
    that has changed.
    """
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return True
    state = getattr(error, "sqlstate", None)
    return isinstance(state, str) and state.startswith(_UNUSABLE)
