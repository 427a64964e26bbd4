"""Parked messages: those a consumer could not process, kept whole in PostgreSQL with their cause.

An operator replays or discards them. The table is the record. The `.parked` queue only carries messages that the broker
dead-lettered because they reached the delivery limit; the consumer moves them into the table.
"""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Computed,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    Table,
    Text,
    Uuid,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import NAMING, new_id
from common.messaging.broker import prepare_for_resending
from common.messaging.topology import own_exchange

metadata: Final = MetaData(naming_convention=NAMING)

parked_messages: Final = Table(
    "parked_messages",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("consumer", Text, nullable=False),
    Column("event_id", Text),
    Column("type", Text),
    Column("cause", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("properties", JSONB, nullable=False),
    Column("digest", LargeBinary, Computed("sha256(body)", persisted=True), nullable=False),
    Column("parked_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("resolved_at", DateTime(timezone=True)),
    Column("resolution", Text),
    Column("reason", Text),
    CheckConstraint("(resolved_at IS NULL) = (resolution IS NULL)", name="resolved"),
    CheckConstraint("resolution IN ('replayed', 'discarded')", name="resolution"),
    Index("ix_parked_messages_parked_at", "parked_at"),
    Index(
        "uq_parked_messages_open",
        "consumer",
        "event_id",
        "digest",
        unique=True,
        postgresql_where=text("resolved_at IS NULL"),
        postgresql_nulls_not_distinct=True,
    ),
)

FORGED: Final = "forged"
"""The cause of an event that did not come from the producer that its type names."""
LISTED: Final = ("id", "event_id", "type", "cause", "attempts", "parked_at")
DELIVERY_LIMIT: Final = "delivery limit: the consumer died or lost its connection too often while it held this message"


async def park(session: AsyncSession, consumer: str, message: DeliveredMessage, cause: str, *, attempts: int) -> None:
    """Stores the message in the caller's transaction; the caller acknowledges it after the commit.

    If that acknowledgement is lost, the message is delivered again and stored only once.
    """
    properties = message.header.properties
    await session.execute(
        insert(parked_messages)
        .values(
            id=new_id(),
            consumer=consumer,
            event_id=_text(properties.message_id),
            type=_text(properties.message_type),
            cause=_text(cause),
            attempts=attempts,
            body=message.body,
            properties=_as_json({name: getattr(properties, name) for name in properties.attributes()}),
        )
        .on_conflict_do_nothing()
    )


async def list_open(session: AsyncSession, consumer: str, *, limit: int = 100) -> Sequence[RowMapping]:
    """Messages that wait for a decision, oldest first, without body and properties."""
    columns = [parked_messages.c[name] for name in LISTED]
    query = select(*columns).where(_open(consumer)).order_by(parked_messages.c.parked_at).limit(limit)
    return (await session.execute(query)).mappings().all()


async def find(session: AsyncSession, consumer: str, message_id: UUID) -> RowMapping | None:
    query = select(parked_messages).where(parked_messages.c.consumer == consumer, parked_messages.c.id == message_id)
    return (await session.execute(query)).mappings().one_or_none()


async def replay(session: AsyncSession, consumer: str, message_id: UUID, channel: Channel) -> bool:
    """Sends an open message to its consumer again, with its attempts reset. Returns whether it was open.

    The broker confirms it before the caller commits. After a crash in between it can be sent a second time; because of
    the inbox it is processed once.
    """
    row = await _lock(session, consumer, message_id)
    if row is None:
        return False
    properties = Basic.Properties(**_restored(row["properties"]))
    properties.expiration = None
    properties.headers = {
        name: value for name, value in (properties.headers or {}).items() if not name.startswith("x-")
    }
    if not prepare_for_resending(properties, {}):
        properties.headers = {}  # it will be parked again, but does not block the replay of others
    await channel.basic_publish(
        row["body"],
        exchange=own_exchange(consumer.removesuffix(".inbound")),
        routing_key=consumer,
        properties=properties,
        mandatory=True,
        timeout=30,
    )
    await _resolve(session, message_id, "replayed", None)
    return True


async def discard(session: AsyncSession, consumer: str, message_id: UUID, reason: str) -> bool:
    """Closes an open message without processing it and keeps the reason. Returns whether it was open."""
    if await _lock(session, consumer, message_id) is None:
        return False
    await _resolve(session, message_id, "discarded", reason)
    return True


def _open(consumer: str) -> ColumnElement[bool]:
    return (parked_messages.c.consumer == consumer) & parked_messages.c.resolved_at.is_(None)


async def _lock(session: AsyncSession, consumer: str, message_id: UUID) -> RowMapping | None:
    query = select(parked_messages).where(_open(consumer), parked_messages.c.id == message_id).with_for_update()
    return (await session.execute(query)).mappings().one_or_none()


async def _resolve(session: AsyncSession, message_id: UUID, resolution: str, reason: str | None) -> None:
    await session.execute(
        update(parked_messages)
        .where(parked_messages.c.id == message_id)
        .values(resolved_at=func.now(), resolution=resolution, reason=reason)
    )


def _text(value: str | None) -> str | None:
    """Replaces what PostgreSQL's text cannot hold: NUL and unpaired surrogates."""
    if value is None:
        return None
    return value.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="backslashreplace").decode()


def _as_json(properties: dict[str, Any]) -> Any:
    """As JSON. Headers nested too deep for that are left out: the message must be parked in any case."""
    try:
        return _plain(properties)
    except RecursionError:
        return _plain({**properties, "headers": None})


def _plain(value: Any) -> Any:
    """An AMQP field as JSON. Bytes and times are marked, so that a replay can restore them."""
    match value:
        case dict():
            plain: Any = {_text(str(key)): _plain(item) for key, item in value.items() if item is not None}
        case list() | tuple():
            plain = [_plain(item) for item in value]
        case bytes() | bytearray():
            plain = {"$bytes": base64.b64encode(value).decode()}
        case datetime():
            plain = {"$time": value.isoformat()}
        case bool() | int() | float() | None:
            plain = value
        case _:
            plain = _text(str(value))
    return plain


def _restored(value: Any) -> Any:
    """The AMQP field from the JSON of `_plain`."""
    match value:
        case {"$bytes": str(encoded)}:
            return bytearray(base64.b64decode(encoded))
        case {"$time": str(moment)}:
            return datetime.fromisoformat(moment)
        case dict():
            return {key: _restored(item) for key, item in value.items()}
        case list():
            return [_restored(item) for item in value]
        case _:
            return value
