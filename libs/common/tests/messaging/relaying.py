"""A relay of the shop's events, what its outbox and log have, and conditions to wait for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import text

from common.db.database import Database
from common.messaging.cloudevents import Event
from common.messaging.outbox import record
from common.messaging.relay import relay
from common.runtime.health import Health
from common.settings import ServiceSettings


class Sold(Event):
    type: ClassVar[str] = "shop.item.sold.v1"

    number: int


class Returned(Sold):
    type: ClassVar[str] = "shop.item.returned.v1"


@asynccontextmanager
async def running(work: Callable[[asyncio.Event], Awaitable[None]]) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.ensure_future(work(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


def relaying(settings: ServiceSettings, health: Health | None = None) -> Any:
    return running(lambda stop: relay(settings, health or Health(), stop))


async def sell(database: Database, number: int, *, subject: UUID | str, version: int = 1) -> UUID:
    async with database.transaction() as session:
        return await record(session, Sold(number=number), subject=subject, version=version)


async def counts(database: Database) -> tuple[int, int]:
    async with database.transaction() as session:
        row = await session.execute(text("SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM event_log)"))
        pending, logged = row.one()
        return pending, logged


async def has_length(items: list[Any], expected: int) -> bool:
    return len(items) >= expected


async def equals(answer: Awaitable[Any], expected: Any) -> bool:
    return bool(await answer == expected)
