"""Messages that arrived before an earlier event of their aggregate, and wait for it in PostgreSQL.

The transaction that finds the gap stores them. Twice a second each process of the consumer sends those that need not
wait any longer to its queue again: their predecessor was processed or parked, or did not arrive within the time of all
retries. A row's deletion is committed after the broker's confirm; a crash in between sends the message twice.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from datetime import timedelta
from time import perf_counter
from typing import Any, Final, NoReturn

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    delete,
    exists,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import NAMING, Database, new_id
from common.messaging.aggregate_versions import Aggregate, aggregate_versions
from common.messaging.broker import prepare_for_resending
from common.messaging.parked import as_json, restored
from common.messaging.topology import own_exchange
from common.runtime.background import every

metadata: Final = MetaData(naming_convention=NAMING)

deferred_messages: Final = Table(
    "deferred_messages",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("consumer", Text, nullable=False),
    Column("aggregate", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("properties", JSONB, nullable=False),
    Column("deferred_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("ix_deferred_messages_aggregate", "consumer", "aggregate", "subject", "version"),
)

_RESTART: Final = text(
    """UPDATE deferred_messages SET deferred_at = now() WHERE id IN (
        SELECT id FROM deferred_messages
        JOIN unnest(CAST(:kinds AS text[]), CAST(:subjects AS text[])) AS sent (aggregate, subject)
        USING (aggregate, subject) WHERE consumer = :consumer FOR UPDATE OF deferred_messages SKIP LOCKED)"""
)

DEFERRAL_HEADER: Final = "x-waybill-deferral"
WAITED: Final = 3
"""The header's value in a message that has waited. Earlier releases counted up to it."""
CHUNK: Final = 100
_PAUSE: Final = 0.5
_SHARE: Final = 10
"""The pause is also this many times what a release took, so that many messages cannot occupy the database."""
_LONGEST_PAUSE: Final = 30.0
"""Or a broker that was slow to confirm would hold up the next release for minutes."""
_PATIENCE_MARGIN: Final = 10.0
"""Seconds that a message waits longer than all retries of an earlier one take, processing included."""

_AGGREGATE: Final = ("consumer", "aggregate", "subject")
_LAST: Final = (
    select(aggregate_versions.c.version)
    .where(*(aggregate_versions.c[name] == deferred_messages.c[name] for name in _AGGREGATE))
    .scalar_subquery()
)
_earlier: Final = deferred_messages.alias("earlier")
_IS_FIRST: Final = ~exists().where(
    *(_earlier.c[name] == deferred_messages.c[name] for name in _AGGREGATE),
    _earlier.c.version < deferred_messages.c.version,
)


async def defer(
    session: AsyncSession, consumer: str, messages: Iterable[tuple[Aggregate, int, DeliveredMessage]]
) -> None:
    """Stores messages, each with its aggregate and version, in the transaction that has locked the aggregates."""
    rows = [
        {
            "id": new_id(),
            "consumer": consumer,
            "aggregate": kind,
            "subject": subject,
            "version": version,
            "body": message.body,
            "properties": as_json(message.header.properties),
        }
        for (kind, subject), version, message in messages
    ]
    if rows:
        await session.execute(insert(deferred_messages), rows)


def is_sendable(message: DeliveredMessage) -> bool:
    """Whether `release` can send what `defer` stores, which may be longer than what was received."""
    received, more = message.header.properties, {DEFERRAL_HEADER: WAITED}
    return prepare_for_resending(copy(received), more) and prepare_for_resending(
        Basic.Properties(**restored(as_json(received))), more
    )


async def keep_releasing(
    database: Database, consumer: str, channel: Channel, delays: Sequence[float], is_attached: Callable[[], bool]
) -> NoReturn:
    """Sends what need not wait any longer, again and again, while the consumer is attached."""
    patience = timedelta(seconds=sum(delays) + _PATIENCE_MARGIN)

    async def work() -> None:
        if is_attached():
            started = perf_counter()
            await release(database, consumer, channel, patience)
            await asyncio.sleep(min(_SHARE * (perf_counter() - started), _LONGEST_PAUSE))

    await every(_PAUSE, work)


async def release(database: Database, consumer: str, channel: Channel, patience: timedelta) -> None:
    """Sends to the consumer what need not wait any longer, or has waited for `patience`."""
    columns = deferred_messages.c
    ready = (
        select(columns.id)
        .where(columns.consumer == consumer)
        .where((columns.version <= _LAST + 1) | ((columns.deferred_at < func.now() - patience) & _IS_FIRST))
        .order_by(columns.version)
        .limit(CHUNK)
        .with_for_update(skip_locked=True)
    )
    statement = delete(deferred_messages).where(columns.id.in_(ready))
    sent = CHUNK
    while sent == CHUNK:
        async with database.transaction() as session:
            rows = (await session.execute(statement.returning(deferred_messages))).all()
            rows = sorted(rows, key=lambda row: row.version)
            await _restart_patience(session, consumer, rows)
            await asyncio.gather(*(_send(channel, consumer, row.body, row.properties) for row in rows))
        sent = len(rows)


async def _restart_patience(session: AsyncSession, consumer: str, sent: Sequence[Any]) -> None:
    """For the others of these aggregates, which follow what is sent now."""
    if sent:
        keys = {"kinds": [row.aggregate for row in sent], "subjects": [row.subject for row in sent]}
        await session.execute(_RESTART, {"consumer": consumer, **keys})


async def _send(channel: Channel, consumer: str, body: bytes, stored: Any) -> None:
    properties = Basic.Properties(**restored(stored))
    properties.expiration = None
    prepare_for_resending(properties, {DEFERRAL_HEADER: WAITED})
    await channel.basic_publish(
        body,
        exchange=own_exchange(consumer.removesuffix(".inbound")),
        routing_key=consumer,
        properties=properties,
        mandatory=True,
        timeout=20,
    )
