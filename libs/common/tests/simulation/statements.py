"""What the relay's and the consumer's statements do, for the simulation's store.

Each function replaces the one of the same name in `common.messaging`, and takes the same arguments.
"""

import asyncio
import operator
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from aiormq.abc import DeliveredMessage

from common.messaging import deferred
from common.messaging.aggregate_versions import Aggregate
from common.messaging.parked import as_json

from .store import Session, Store

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


def now() -> datetime:
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


# The relay's.


async def lock(session: Session, partitions: Sequence[int]) -> tuple[int, ...]:
    async def statement() -> tuple[int, ...]:
        return tuple(each for each in partitions if session.try_lock("partition", each))

    return await session.run(statement)  # type: ignore[no-any-return]


async def oldest(
    session: Session, partitions: tuple[int, ...], after: int, limit: int, held: Sequence[str]
) -> Sequence[Any]:
    async def statement() -> list[Any]:
        rows = sorted(session.rows("outbox").values(), key=operator.itemgetter("id"))
        rows = [row for row in rows if row["partition"] in partitions and row["id"] > after]
        waiting: set[str] = set()
        free = []
        for row in rows:
            if row["type"] in held:
                waiting.add(row["subject"])
            elif row["subject"] not in waiting:
                free.append(row)
        return free[:limit]

    return await session.run(statement)  # type: ignore[no-any-return]


async def move(session: Session, partitions: tuple[int, ...], rows: Sequence[Any]) -> None:
    async def statement() -> None:
        await session.lock("event-log-order")
        for row in rows:
            await session.lock("outbox", row["id"])
            if session.row("outbox", row["id"]) is not None:
                session.write("outbox", row["id"], None)
                session.write("log", row["id"], row)

    await session.run(statement)


# The consumer's.


async def advance(session: Session, consumer: str, versions: Mapping[Aggregate, int]) -> dict[Aggregate, int]:
    async def statement() -> dict[Aggregate, int]:
        result = {}
        for aggregate, version in sorted(versions.items()):
            await session.lock("version", aggregate)
            last, since = session.row("versions", aggregate) or (version, now())
            result[aggregate] = max(last, version)
            session.write("versions", aggregate, (result[aggregate], since))
        return result

    return await session.run(statement) if versions else {}


async def first_deliveries(session: Session, consumer: str, event_ids: Sequence[UUID]) -> set[UUID]:
    async def statement() -> set[UUID]:
        first = set()
        for event_id in sorted(set(event_ids)):
            await session.lock("inbox", event_id)
            if session.row("inbox", event_id) is None:
                session.write("inbox", event_id, now())
                first.add(event_id)
        return first

    return await session.run(statement) if event_ids else set()


async def defer(session: Session, consumer: str, messages: Iterable[tuple[Aggregate, int, DeliveredMessage]]) -> None:
    rows = [
        {
            "aggregate": aggregate,
            "version": version,
            "body": message.body,
            "properties": as_json(message.header.properties),
            "deferred_at": now(),
        }
        for aggregate, version, message in messages
    ]

    async def statement() -> None:
        for row in rows:
            session.write("deferred", object(), row)

    if rows:
        await session.run(statement)


async def release(store: Store, consumer: str, channel: Any, patience: timedelta) -> None:
    async with store.transaction() as session:

        async def statement() -> list[Any]:
            rows = session.rows("deferred")
            versions = session.rows("versions")
            first: dict[Aggregate, int] = {}
            for row in rows.values():
                first[row["aggregate"]] = min(row["version"], first.get(row["aggregate"], row["version"]))
            ready = []
            for key, row in sorted(rows.items(), key=lambda item: item[1]["version"]):
                is_next = row["version"] <= versions[row["aggregate"]][0] + 1
                is_overdue = row["deferred_at"] < now() - patience and row["version"] == first[row["aggregate"]]
                if (is_next or is_overdue) and session.try_lock("deferred", key):
                    session.write("deferred", key, None)
                    ready.append(row)
            sent = {row["aggregate"] for row in ready}
            for key, row in session.rows("deferred").items():
                if row["aggregate"] in sent and session.try_lock("deferred", key):
                    session.write("deferred", key, row | {"deferred_at": now()})
            return ready

        rows = await session.run(statement)
        await asyncio.gather(*(deferred._send(channel, consumer, row["body"], row["properties"]) for row in rows))


async def park(
    session: Session,
    consumer: str,
    message: DeliveredMessage,
    cause: str,
    *,
    attempts: int,
    event_id: str | None = None,
) -> bool:
    properties = message.header.properties
    key = parked_key(message, event_id)
    new = {"properties": as_json(properties), "cause": cause, "body": message.body, "event_id": key[0]}

    async def statement() -> bool:
        if event_id is not None:
            await session.lock("inbox", UUID(event_id))
            if session.row("inbox", UUID(event_id)) is not None:
                return False
        await session.lock("parked", key)
        for number, row in session.rows("parked").items():
            if row["key"] == key and row["resolved_at"] is None:
                if event_id is not None:
                    session.write("parked", number, row | new)
                return True
        session.write("parked", object(), new | {"key": key, "resolved_at": None})
        return True

    return await session.run(statement)  # type: ignore[no-any-return]


async def close_processed(
    session: Session, consumer: str, messages: Iterable[tuple[DeliveredMessage, str | None]]
) -> None:
    keys = [parked_key(message, event_id) for message, event_id in messages]

    async def statement() -> None:
        for key in keys:
            # Only rows that are committed: an UPDATE does not wait for an insert of another transaction.
            if any(is_open(row, key) for row in session.rows("parked").values()):
                await session.lock("parked", key)
                for number, row in list(session.rows("parked").items()):
                    if is_open(row, key):
                        session.write("parked", number, row | {"resolved_at": now()})

    if keys:
        await session.run(statement)


async def find(session: Session, consumer: str, message_id: Any) -> Any:
    async def statement() -> Any:
        return session.row("parked", message_id)

    return await session.run(statement)


def parked_key(message: DeliveredMessage, event_id: str | None) -> tuple[str | None, bytes]:
    return message.header.properties.message_id or event_id, sha256(message.body).digest()


def is_open(row: Any, key: tuple[str | None, bytes]) -> bool:
    return row["key"] == key and row["resolved_at"] is None
