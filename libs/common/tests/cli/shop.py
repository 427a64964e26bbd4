"""A made-up service, and its operators' commands as an operator calls them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from click.testing import CliRunner, Result
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.cli import consumer_commands
from common.db.database import Database
from common.messaging.cloudevents import Event
from common.messaging.consumer import Consumer
from common.messaging.event_handlers import EventHandlers, Received
from common.messaging.outbox import record
from common.messaging.relay import relay
from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.plugin import eventually


class Sold(Event):
    type: ClassVar[str] = "shop.item.sold.v1"

    number: int


class Shop:
    """The made-up service: its relay, and a consumer whose handler fails while `broken`."""

    def __init__(self, settings: ServiceSettings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.broken = False

    async def sell(self, number: int, version: int) -> None:
        async with self.database.transaction() as session:
            await record(session, Sold(number=number), subject="item", version=version)

    async def effects(self) -> list[str]:
        async with self.database.transaction() as session:
            return list((await session.execute(text("SELECT note FROM effects ORDER BY position"))).scalars())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Runs relay and consumer. The queue is bound when the block starts."""
        stop, health = asyncio.Event(), Health()
        running = asyncio.ensure_future(self._run(stop, health))
        try:
            await eventually(lambda: _ready(health))
            yield
        finally:
            stop.set()
            await running

    async def _run(self, stop: asyncio.Event, health: Health) -> None:
        handlers = EventHandlers()

        @handlers.on("shop.item.sold.v1", Sold)
        async def sold(session: AsyncSession, event: Received[Sold]) -> None:
            if self.broken:
                raise RuntimeError("broken")
            await session.execute(text("INSERT INTO effects (note) VALUES (:note)"), {"note": str(event.data.number)})

        await asyncio.gather(
            relay(self.settings, Health(), stop), Consumer(self.settings, self.database, handlers, health).run(stop)
        )

    async def command(self, command: Any, *arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, command, arguments, obj=lambda _: self.settings)

    async def waiting(self) -> Any:
        """What `parked list` shows."""
        return await self.json(consumer_commands.parked, "list")

    async def json(self, command: Any, *arguments: str) -> Any:
        result = await self.command(command, *arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


async def _ready(health: Health) -> bool:
    return (await health.ready())[0]
