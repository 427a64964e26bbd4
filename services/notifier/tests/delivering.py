"""Runs a deliverer for the length of a block."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from common.db.database import new_id
from common.runtime.health import Health
from notifier.deliver import deliver
from notifier.settings import Settings

from .world import World


@asynccontextmanager
async def delivering(settings: Settings) -> AsyncIterator[Health]:
    stop, health = asyncio.Event(), Health()
    task = asyncio.create_task(deliver(settings, health, stop))
    try:
        yield health
    finally:
        stop.set()
        await asyncio.wait_for(task, 25)


async def all_sent(world: World) -> bool:
    return set(await world.states()) == {"sent"}


async def customer(world: World, **fields: Any) -> Any:
    user_id = new_id()
    await world.registered(user_id, **fields)
    return user_id


async def has_cause(world: World, cause: str) -> bool:
    return any(cause in (delivery["cause"] or "") for delivery in await world.deliveries())
