"""One service's PostgreSQL: engine, transactions, and NOTIFY to listeners after a commit."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final, Self

from sqlalchemy import DateTime, LargeBinary, Text, event, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from uuid_utils.compat import uuid7

from common.db.driver import UNFIT, Endpoint, driver_dsn, makes_unusable
from common.db.notify import Notifier
from common.settings import ServiceSettings

NAMING: Final = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Constraint names: stable, so that migrations can name what they change."""

COLUMN_TYPES: Final = {
    str: Text,
    bytes: LargeBinary,
    datetime: DateTime(timezone=True),
    dict[str, Any]: JSONB,
    list[str]: ARRAY(Text),
}
"""PostgreSQL's types of the columns of models, by the types in their annotations."""

OUTBOX_CHANNEL: Final = "outbox"
EVENT_LOG_CHANNEL: Final = "event_log"
"""Events were moved to the event log."""
EVENT_LOG_ERASED_CHANNEL: Final = "event_log_erased"
"""Data of events in the log was erased."""
_CHANNELS: Final = "channels to notify"
_UNNAMED: Final[dict[str, Any]] = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
"""SQLAlchemy's own options for statements without a name (`str()` is "")."""


def new_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562 §5.7): sorts by time, so that indexes grow at one end."""
    return uuid7()


def first_id_at(moment: datetime) -> uuid.UUID:
    """The smallest UUIDv7 of `moment` (RFC 9562 §5.7): ids created later are greater."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Database:
    """Holds the engine; connects on first use, so that boot order does not matter. `async with` closes it."""

    def __init__(self, settings: ServiceSettings, *, role: str = "api") -> None:
        url, timeout = settings.database_url.get_secret_value(), settings.database_timeout
        name = f"{settings.service}-{role}"
        self.dsn = driver_dsn(url)
        """Of the server itself, for LISTEN."""
        self.endpoint = Endpoint.of(settings)
        self.engine: AsyncEngine = create_async_engine(
            make_url(self.endpoint.dsn).set(drivername="postgresql+asyncpg"),
            pool_size=settings.database_pool_size,
            max_overflow=settings.database_pool_overflow,
            pool_timeout=timeout,
            pool_pre_ping=False,
            pool_use_lifo=True,
            hide_parameters=True,  # they hold addresses and password hashes; errors go to the log
            connect_args={
                "timeout": timeout,
                "command_timeout": timeout,
                **self.endpoint.options(name),
                **(_UNNAMED if self.endpoint.is_pooler else {}),
            },
        )
        event.listen(self.engine.sync_engine, "handle_error", _drop_unusable)
        self._notifier = Notifier(self.endpoint, name)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session in one transaction: committed on success, rolled back on any error.

        After the commit it notifies the channels given to `notify_after_commit`. Should NOTIFY fail, listeners find the
        rows by polling.
        """
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            async with session.begin():
                yield session
            for channel in session.info.get(_CHANNELS, ()):
                self.notify(channel)

    def notify(self, channel: str = OUTBOX_CHANNEL) -> None:
        """Notifies the listeners of `channel`, by default the relay, within about a millisecond.

        For a hot path that writes the outbox without `transaction`, which calls this after its commit.
        """
        self._notifier.notify(channel)

    async def ping(self) -> None:
        """Raises if the database does not answer, or does not accept writes, as a standby does not."""
        async with self.engine.connect() as connection:
            unfit = await connection.scalar(text(UNFIT))
        if unfit:
            await self.engine.dispose()  # the pool's connections lead to the same server
            raise ConnectionError(unfit)

    async def close(self) -> None:
        await self._notifier.close()
        await self.engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _drop_unusable(context: ExceptionContext) -> None:
    """SQLAlchemy then drops the pool's other connections as well."""
    if makes_unusable(context.original_exception.__cause__ or context.original_exception):
        context.is_disconnect = True


def notify_after_commit(session: AsyncSession, channel: str) -> None:
    """Has `Database.transaction` notify `channel` (an SQL identifier) once this session is committed."""
    session.info.setdefault(_CHANNELS, set()).add(channel)
