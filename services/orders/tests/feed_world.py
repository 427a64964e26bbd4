"""A shop whose API is served on a port, and a relay that moves its events to the log on request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import httpx

from common.db.driver import driver_dsn
from common.messaging import outbox_partitions
from common.testing.served import event_source

from .conftest import Shop


class FeedShop(Shop):
    def __init__(self, client: httpx.AsyncClient, dsn: str) -> None:
        super().__init__(client)
        self.dsn = driver_dsn(dsn)
        self.events_client = self.client_bearer("events:read")

    async def publish(self, partitions: Sequence[int] = outbox_partitions.PARTITIONS, *, notify: bool = True) -> None:
        """Moves what is in the outbox to the log, as a relay does after the broker's confirms."""
        connection = await asyncpg.connect(self.dsn)
        try:
            async with connection.transaction():
                locked = await outbox_partitions.lock(connection, partitions)
                rows = await outbox_partitions.oldest(connection, locked, 0, 500, [])
                await outbox_partitions.move(connection, locked, rows)
            if notify:
                await connection.execute("NOTIFY event_log")
        finally:
            await connection.close()

    async def read(self, query: str = "", **headers: str) -> list[dict[str, Any]]:
        answer = await self.client.get(f"/events{query}", headers=headers or self.events_client)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "application/cloudevents-batch+json"
        events: list[dict[str, Any]] = answer.json()
        return events

    @contextlib.asynccontextmanager
    async def stream(self, path: str = "/events/stream", **headers: str) -> AsyncIterator[AsyncIterator[Any]]:
        """The stream's events; it has begun when the block does."""
        async with event_source(self.client, path, headers or self.events_client) as events:
            assert await next_of(events) == {"comment": ""}
            yield events


async def next_of(events: AsyncIterator[dict[str, str]], *, within: float = 5.0) -> dict[str, str]:
    return await asyncio.wait_for(anext(events), within)
