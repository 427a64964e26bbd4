"""One service's PostgreSQL: engine, transactions, and the bell that wakes who waits for a commit."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import structlog
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from uuid_utils.compat import uuid7

from common.settings import ServiceSettings

log = structlog.get_logger(__name__)

NAMING: Final = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Constraint names: stable, so that migrations can name what they change."""

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises. The last is no defect: it is what a statement gets between the server's last word on a
connection and the driver's noticing that it was closed."""

OUTBOX_CHANNEL: Final = "outbox"
_RINGS: Final = "rings"


def new_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562 §5.7): sorts by time, so that indexes grow at one end."""
    return uuid7()


def utc_now() -> datetime:
    return datetime.now(UTC)


def driver_dsn(url: str) -> str:
    """The address as asyncpg takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


class Database:
    """Holds the engine; connects on first use, so that boot order does not matter."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        pool_overflow: int = 0,
        timeout: float = 10.0,
        name: str = "waybill",
    ) -> None:
        self.dsn = driver_dsn(url)
        self.engine: AsyncEngine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=pool_overflow,
            pool_timeout=timeout,
            pool_pre_ping=False,
            pool_use_lifo=True,
            hide_parameters=True,  # they hold addresses and password hashes; errors go to the log
            connect_args={
                "timeout": timeout,
                "command_timeout": timeout,
                "server_settings": {
                    "application_name": name,
                    "idle_in_transaction_session_timeout": "60000",
                    "jit": "off",
                },
            },
        )
        self._bell = _Bell(self.dsn, name)

    @classmethod
    def open(cls, settings: ServiceSettings, *, role: str = "api") -> "Database":
        return cls(
            settings.database_url.get_secret_value(),
            pool_size=settings.database_pool_size,
            pool_overflow=settings.database_pool_overflow,
            timeout=settings.database_timeout,
            name=f"{settings.service}-{role}",
        )

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session in one transaction: committed on success, rolled back on any error.

        After the commit those are woken for whom the session was told `ring_after_commit`, such as the relay once an
        event was recorded; should that fail, their poll finds the row.
        """
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            async with session.begin():
                yield session
            for channel in session.info.get(_RINGS, ()):
                self.ring(channel)

    def ring(self, channel: str = OUTBOX_CHANNEL) -> None:
        """Wakes the listeners of `channel` soon, the relay unless said otherwise.

        For a hot path that writes the outbox itself; a transaction rings by itself.
        """
        self._bell.ring(channel)

    async def ping(self) -> None:
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self._bell.close()
        await self.engine.dispose()


def ring_after_commit(session: AsyncSession, channel: str) -> None:
    """Has `Database.transaction` wake the listeners of `channel` (an SQL identifier) once this session is committed."""
    session.info.setdefault(_RINGS, set()).add(channel)


class _Bell:
    """Sends NOTIFY on a connection of its own, many rings in one.

    Inside the writers' transactions NOTIFY would serialise their commits and cost half their throughput.
    """

    _PAUSE = 0.001

    def __init__(self, dsn: str, name: str) -> None:
        self._dsn = dsn
        self._name = f"{name}-bell"
        self._rung = asyncio.Event()
        self._channels: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def ring(self, channel: str) -> None:
        self._channels.add(channel)
        self._rung.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="bell")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        connection: Any = None
        try:
            while True:
                await self._rung.wait()
                self._rung.clear()
                channels, self._channels = self._channels, set()
                try:
                    if connection is None or connection.is_closed():
                        connection = await asyncpg.connect(
                            self._dsn,
                            timeout=5,
                            command_timeout=5,
                            server_settings={"application_name": self._name},
                        )
                    await connection.execute("; ".join(f"NOTIFY {channel}" for channel in sorted(channels)))
                except (OSError, TimeoutError, *DRIVER_ERRORS) as error:
                    log.warning("nobody woken, their poll will find the row", error=type(error).__name__)
                    if connection is not None:
                        connection.terminate()
                        connection = None
                await asyncio.sleep(self._PAUSE)
        finally:
            if connection is not None:
                connection.terminate()
