"""asyncpg: where and how to connect, its errors, and which of them make a connection unusable."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Self

import asyncpg
from sqlalchemy.engine import make_url

from common.settings import ServiceSettings

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises. `InternalClientError` is no defect: a statement gets it between the server's last message on
a connection and the driver's noticing that the connection was closed."""
SESSION: Final = {"idle_in_transaction_session_timeout": "60000", "jit": "off"}
"""Server parameters of every connection. A direct connection brings them; behind a pooler they are the role's own."""
UNFIT: Final = """
    SELECT CASE WHEN current_setting('transaction_read_only')::boolean THEN 'the database accepts no writes'
    WHEN current_setting('idle_in_transaction_session_timeout') = '0' THEN 'no session parameters, run migrate' END"""
"""Why transactions must not run here, or NULL. A standby answers any other query."""
_UNUSABLE: Final = ("08", "57P", "25006")
"""Beginnings of SQLSTATEs (PostgreSQL, appendix A): connection exceptions, a server that ends or starts, and a server
that refuses writes."""


def driver_dsn(url: str) -> str:
    """The address as asyncpg accepts it, from one with SQLAlchemy's driver name."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where transactions reach the database: at the server, or at a PgBouncer in transaction mode in front of it.

    Each transaction through a pooler may have another session of the server: so no startup parameters but the name, and
    no named statements, which PgBouncer supports from 1.21 on only. LISTEN and migrations need the server itself.
    """

    dsn: str
    is_pooler: bool = False

    @classmethod
    def of(cls, settings: ServiceSettings) -> Self:
        url = make_url(settings.database_url.get_secret_value()).set(drivername="postgresql")
        if settings.database_pooler is not None:
            host, _, port = settings.database_pooler.rpartition(":")
            url = url.set(host=host, port=int(port))
        return cls(url.render_as_string(hide_password=False), settings.database_pooler is not None)

    def options(self, name: str) -> dict[str, Any]:
        """Arguments of `asyncpg.connect`; `name` is the connection's at the server."""
        if self.is_pooler:
            return {"server_settings": {"application_name": name}, "statement_cache_size": 0}
        return {"server_settings": {"application_name": name, **SESSION}}

    async def connect(self, name: str, *, timeout: float, command_timeout: float | None = None) -> asyncpg.Connection:  # noqa: ASYNC109
        return await asyncpg.connect(self.dsn, timeout=timeout, command_timeout=command_timeout, **self.options(name))


@contextlib.asynccontextmanager
async def driver_connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for the length of the block. Raises `TimeoutError` if the server does not answer within 10 s."""
    connection = await asyncpg.connect(driver_dsn(url), timeout=10)
    try:
        yield connection
    finally:
        connection.terminate()  # `close` waits for a server that may have gone silent


def makes_unusable(error: BaseException | None) -> bool:
    """Whether the error is about its connection, so that the next statement needs another connection.

    After a failover a connection may still lead to the old primary, which only reads, or have plans cached for a schema
    that has changed.
    """
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return True
    state = getattr(error, "sqlstate", None)
    return isinstance(state, str) and state.startswith(_UNUSABLE)
