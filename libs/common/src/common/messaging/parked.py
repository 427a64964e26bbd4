"""Parked messages: those a consumer could not process, kept whole in PostgreSQL with their cause.

An operator replays or discards them. The table is the record: a row stays open until the transaction that processes its
message closes it, or an operator discards it. The `.parked` queue only carries messages that the broker dead-lettered
because they reached the delivery limit; the consumer moves them into the table.
"""

import base64
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256
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
    false,
    func,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.bulk import columns_of
from common.db.database import NAMING, new_id
from common.messaging.broker import prepare_for_resending
from common.messaging.topology import own_exchange
from common.observability import history

metadata: Final = MetaData(naming_convention=NAMING)
_KEY: Final = ("consumer", "event_id", "digest")
"""Names a message among the open ones."""
_RENEWED: Final = ("type", "cause", "attempts", "properties")

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
        *_KEY,
        unique=True,
        postgresql_where=text("resolved_at IS NULL"),
        postgresql_nulls_not_distinct=True,
    ),
)

FORGED: Final = "forged"
"""The cause of an event that did not come from the producer that its type names."""
FORGED_A_DAY: Final = 10_000
"""Rows of forged events that a consumer keeps of one day: a forger could fill the disk. Further ones are counted."""
LISTED: Final = ("id", "event_id", "type", "cause", "attempts", "parked_at")
REPLAYED_HEADER: Final = "x-waybill-replayed"
"""Marks a replayed message: the consumer closes its row once it is processed."""
_OWN_HEADERS: Final = "x-waybill-"
"""Begins each header that a consumer adds to a message that it, or an operator, sends again."""
DELIVERY_LIMIT: Final = "delivery limit: the consumer died or lost its connection too often while it held this message"

_CLOSE: Final = text(
    """UPDATE parked_messages SET resolved_at = now(), resolution = 'replayed'
    FROM unnest(CAST(:ids AS text[]), CAST(:digests AS bytea[])) AS processed (event_id, digest)
    WHERE consumer = :consumer AND resolved_at IS NULL AND parked_messages.digest = processed.digest
    AND parked_messages.event_id IS NOT DISTINCT FROM processed.event_id"""
)


async def park(
    session: AsyncSession,
    consumer: str,
    message: DeliveredMessage,
    cause: str,
    *,
    attempts: int,
    event_id: str | None = None,
) -> None:
    """Stores the message in the caller's transaction; the caller acknowledges it after the commit.

    `event_id` is that of an event whose producer sent it. If such an event is parked again, after a replay or a lost
    acknowledgement, its open row gets the new cause and the event's own properties. Any other copy of a message that is
    parked changes nothing: it says nothing about the message, and its properties may be a stranger's.
    """
    properties = message.header.properties
    row = insert(parked_messages).values(
        id=new_id(),
        consumer=consumer,
        event_id=_text(properties.message_id or event_id),
        type=_text(properties.message_type),
        cause=_text(cause),
        attempts=attempts,
        body=message.body,
        properties=as_json(properties),
    )
    # DO NOTHING would lose the message if its row is being closed at this moment. This waits, and then inserts.
    await session.execute(
        row.on_conflict_do_update(
            index_elements=_KEY,
            index_where=parked_messages.c.resolved_at.is_(None),
            set_={name: row.excluded[name] for name in _RENEWED} | {"parked_at": func.now()},
            where=false() if event_id is None else true(),
        )
    )


async def keeps_forged(session: AsyncSession, consumer: str) -> bool:
    """Whether the consumer has parked fewer than `FORGED_A_DAY` forged events in the last 24 hours."""
    columns = parked_messages.c
    of_today = (
        select(columns.id)
        .where(columns.parked_at > func.now() - timedelta(days=1))
        .where(columns.consumer == consumer, columns.cause == FORGED)
        .limit(FORGED_A_DAY)
        .subquery()
    )
    count: int = (await session.execute(select(func.count()).select_from(of_today))).scalar_one()
    return count < FORGED_A_DAY


async def close_processed(
    session: AsyncSession, consumer: str, messages: Iterable[tuple[DeliveredMessage, str | None]]
) -> None:
    """Closes the open rows of these messages, each with its event's id, in the transaction that processes them."""
    keys = [
        {"ids": _text(message.header.properties.message_id or event_id), "digests": sha256(message.body).digest()}
        for message, event_id in messages
    ]
    if keys:
        await session.execute(_CLOSE, {"consumer": consumer, **columns_of(keys)})


def may_be_parked(message: DeliveredMessage) -> bool:
    """Whether an open row of the message may exist: its acknowledgement may have been lost, or it was sent again.

    A retry that was confirmed too late, and a deferred message after a crash, are sent twice: one copy may be parked.
    """
    headers = message.header.properties.headers or {}
    return bool(message.redelivered) or any(name.startswith(_OWN_HEADERS) for name in headers)


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

    It stays open until the consumer has processed it, so that neither a crash nor another failure loses it. It can be
    sent several times; because of the inbox it is processed once.
    """
    row = await find(session, consumer, message_id)
    if row is None or row["resolved_at"] is not None:
        return False
    properties = Basic.Properties(**restored(row["properties"]))
    properties.expiration = None
    properties.headers = {
        name: value for name, value in (properties.headers or {}).items() if not name.startswith("x-")
    }
    if not prepare_for_resending(properties, {REPLAYED_HEADER: True}):
        properties.headers = {REPLAYED_HEADER: True}  # parked again if it needs others; blocks no other replay
    history.note("replaying", [(row["event_id"], "", 0)], consumer=consumer)
    await channel.basic_publish(
        row["body"],
        exchange=own_exchange(consumer.removesuffix(".inbound")),
        routing_key=consumer,
        properties=properties,
        mandatory=True,
        timeout=30,
    )
    return True


async def discard(session: AsyncSession, consumer: str, message_id: UUID, reason: str) -> bool:
    """Closes an open message without processing it and keeps the reason. Returns whether it was open."""
    closed = await session.scalars(
        update(parked_messages)
        .where(_open(consumer), parked_messages.c.id == message_id)
        .values(resolved_at=func.now(), resolution="discarded", reason=reason)
        .returning(parked_messages.c.id)
    )
    return closed.one_or_none() is not None


def _open(consumer: str) -> ColumnElement[bool]:
    return (parked_messages.c.consumer == consumer) & parked_messages.c.resolved_at.is_(None)


def _text(value: str | None) -> str | None:
    """Replaces what PostgreSQL's text cannot hold: NUL and unpaired surrogates."""
    if value is None:
        return None
    return value.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="backslashreplace").decode()


def as_json(properties: Basic.Properties) -> Any:
    """As JSON. Headers nested too deep for that are left out: the message must be parked in any case."""
    attributes = {name: getattr(properties, name) for name in properties.attributes()}
    try:
        return _plain(attributes)
    except RecursionError:
        return _plain({**attributes, "headers": None})


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


def restored(value: Any) -> Any:
    """The AMQP field from the JSON of `_plain`. A sender's own table may look like a mark: it stays a table."""
    with suppress(ValueError):
        match value:
            case {"$bytes": str(encoded)}:
                return bytearray(base64.b64decode(encoded))
            case {"$time": str(moment)}:
                return datetime.fromisoformat(moment)
    match value:
        case dict():
            return {key: restored(item) for key, item in value.items()}
        case list():
            return [restored(item) for item in value]
        case _:
            return value
