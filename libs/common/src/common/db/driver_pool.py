"""Connections of the driver itself, for the few statements that are too hot for SQLAlchemy to run."""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql import asyncpg as dialect

from common.db.driver import driver_dsn


class DriverStatement:
    """A statement made with SQLAlchemy Core and compiled once, as the driver takes it.

    Values come back as asyncpg reads them: JSON is text.
    """

    def __init__(self, statement: ClauseElement) -> None:
        compiled: Any = statement.compile(dialect=dialect.dialect())  # type: ignore[no-untyped-call]
        self.text = str(compiled)
        self._defaults: dict[str, Any] = compiled.params
        self._names: Sequence[str] = compiled.positiontup or ()

    def arguments(self, values: dict[str, Any]) -> list[Any]:
        """By position, from the values of the statement's `bindparam`s."""
        return [values[name] if name in values else self._defaults[name] for name in self._names]


class DriverPool:
    """Up to `size` asyncpg connections, each for one statement at a time, which is its own transaction.

    asyncpg's pool costs a request about as much as the statement itself, to restore what a borrower may have changed.
    Here nothing is lent: a statement leaves no state behind, and a connection that it failed on otherwise than by the
    database's own word is dropped. Connections are opened when they are needed and lost ones replaced.

    `timeout` is in seconds and covers it all: waiting, connecting, the statement. `TimeoutError` and a lost connection
    leave unknown whether the statement took effect.
    """

    def __init__(self, url: str, *, size: int, timeout: float, name: str) -> None:
        self._dsn = driver_dsn(url)
        self._timeout = timeout
        self._name = name
        self._places = asyncio.Semaphore(size)
        self._idle: list[asyncpg.Connection] = []

    async def fetch(self, statement: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        async with asyncio.timeout(self._timeout), self._places:
            connection = await self._connection()
            try:
                rows: Sequence[asyncpg.Record] = await connection.fetch(statement, *arguments)
            except asyncpg.PostgresError:
                self._idle.append(connection)
                raise
            except BaseException:
                connection.terminate()
                raise
            self._idle.append(connection)
            return rows

    async def run(self, statement: DriverStatement, **values: Any) -> Sequence[asyncpg.Record]:
        return await self.fetch(statement.text, *statement.arguments(values))

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().terminate()

    async def _connection(self) -> asyncpg.Connection:
        # The last one used first: its buffers and its backend's caches are warm.
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await asyncpg.connect(
            self._dsn,
            timeout=self._timeout,
            server_settings={"application_name": self._name, "jit": "off"},
        )
