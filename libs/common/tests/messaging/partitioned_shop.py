"""Publishes a shop's events as its relay does, and runs processes that receive them from several queues."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiormq import Channel
from sqlalchemy import text

from common.db.database import Database, new_id, utc_now
from common.messaging import broker, partitions
from common.messaging.cloudevents import Envelope, encode
from common.messaging.topology import inbound_queues
from common.settings import ServiceSettings
from common.testing.plugin import eventually


class PartitionedShop:
    def __init__(self, settings: ServiceSettings, database: Database) -> None:
        self._database = database
        self._database_url = settings.database_url.get_secret_value()
        self._amqp_url = settings.amqp_url.get_secret_value()
        self.published: Counter[str] = Counter()
        """The last version of each item."""

    async def start(self, queues: int) -> Process:
        program = str(Path(__file__).with_name("partitioned_consumer.py"))
        return await asyncio.create_subprocess_exec(
            sys.executable, program, self._database_url, self._amqp_url, str(queues)
        )

    @asynccontextmanager
    async def processes(self, *queues: int) -> AsyncIterator[list[Process]]:
        """A process for each number of queues. The block may kill and replace them."""
        running = [await self.start(each) for each in queues]
        try:
            yield running
        finally:
            for process in running:
                if process.returncode is None:
                    process.terminate()
            codes = await asyncio.gather(*(asyncio.wait_for(process.wait(), 60) for process in running))
        assert set(codes) <= {0, -signal.SIGTERM}, codes  # one may not have got as far as handling the signal

    async def publish(self, subjects: Sequence[str], versions: int) -> None:
        """The next versions of each item, one of an item after the other."""
        async with broker.connect(self._amqp_url, "publisher") as connection:
            channel = await broker.raw_channel(connection, confirms=True)
            for first in range(0, len(subjects), 100):
                some = subjects[first : first + 100]
                await asyncio.gather(*(self._publish(channel, subject, versions) for subject in some))

    async def _publish(self, channel: Channel, subject: str, versions: int) -> None:
        for _ in range(versions):
            event = Envelope(
                new_id(),
                "shop.item.sold.v1",
                subject,
                self.published[subject] + 1,
                utc_now(),
                json.dumps({"number": 1}),
            )
            body, properties = encode(event)
            await channel.basic_publish(
                body, exchange="shop.events", routing_key=event.type, properties=properties, mandatory=True
            )
            self.published[subject] += 1

    async def count(self) -> int:
        async with self._database.transaction() as session:
            return await session.scalar(text("SELECT count(*) FROM effects")) or 0

    async def all_processed(self) -> bool:
        return await self.count() >= self.published.total()

    async def effects(self) -> list[tuple[str, int, int]]:
        """Item, version and process, in the order of the effects."""
        async with self._database.transaction() as session:
            notes = await session.scalars(text("SELECT note FROM effects ORDER BY position"))
            return [(subject, int(version), int(pid)) for subject, version, pid in map(str.split, notes)]

    async def assert_exact(self) -> None:
        """Every event of every item was processed once, in order."""
        versions: defaultdict[str, list[int]] = defaultdict(list)
        for subject, version, _ in await self.effects():
            versions[subject].append(version)
        expected = {subject: list(range(1, last + 1)) for subject, last in self.published.items()}
        wrong = {subject: seen for subject, seen in versions.items() if seen != expected.get(subject)}
        assert (len(versions), wrong) == (len(expected), {}), f"{len(expected)} items; not as published: {wrong}"

    async def are_in_use(self, queues: int) -> bool:
        async with broker.connect(self._amqp_url, "count") as connection:
            return (await partitions.queues_in_use(connection, "shop")).are_of(queues)

    async def are_received(self, queues: int) -> bool:
        """Whether that many queues are in use, and processes receive from all of them."""
        async with broker.connect(self._amqp_url, "count") as connection:
            states = [await partitions.state(connection, name) for name in inbound_queues("shop", queues)]
        return all(found is not None and found.consumer_count for found in states) and await self.are_in_use(queues)

    async def attached(self, queues: int, *, within: float = 60) -> None:
        await eventually(lambda: self.are_received(queues), within=within)
