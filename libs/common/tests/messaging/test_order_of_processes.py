"""Two processes that share one queue keep the order of each aggregate, from its first event on."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import Process
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from aio_pika.abc import AbstractChannel
from aiormq import Channel
from pamqp.common import FieldTable
from sqlalchemy import text

from common.db.database import Database, new_id, utc_now
from common.messaging import broker
from common.messaging.cloudevents import Envelope, encode
from common.settings import ServiceSettings
from common.testing.plugin import eventually

ORDERS = 299
"""An odd number: two processes that receive in turn get the versions of each order in turn."""
VERSIONS = 3


class Shop:
    def __init__(self, settings: ServiceSettings, database: Database, publisher: Channel) -> None:
        self._settings = settings
        self._database = database
        self._publisher = publisher

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Process]:
        """A process that is attached to the queue."""
        before = await self._attached()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("ordered_consumer.py")),
            self._settings.database_url.get_secret_value(),
            self._settings.amqp_url.get_secret_value(),
        )

        async def attached() -> bool:
            assert process.returncode is None
            return await self._attached() > before

        try:
            await eventually(attached, within=60)
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 60) == 0

    async def _attached(self) -> int:
        async with broker.connect(self._settings.amqp_url.get_secret_value(), "count") as amqp:
            channel = await broker.raw_channel(amqp, confirms=False)
            await channel.queue_declare("shop.inbound", durable=True, arguments=ARGUMENTS)
            return (await channel.queue_declare("shop.inbound", passive=True)).consumer_count or 0

    async def publish(self, subject: str, version: int) -> None:
        body, properties = encode(
            Envelope(new_id(), "shop.item.sold.v1", subject, version, utc_now(), json.dumps({"number": 1}))
        )
        await self._publisher.basic_publish(
            body, exchange="shop.events", routing_key="shop.item.sold.v1", properties=properties, mandatory=True
        )

    async def versions(self) -> dict[str, list[int]]:
        """The versions of each subject in the order of their effects."""
        found = defaultdict(list)
        async with self._database.transaction() as session:
            for note in await session.scalars(text("SELECT note FROM effects ORDER BY position")):
                subject, version = note.split()
                found[subject].append(int(version))
        return found

    async def progress(self, seen: int = 0) -> bool:
        """Whether a process has received events of more than `seen` subjects."""
        async with self._database.transaction() as session:
            count = await session.scalar(text("SELECT count(*) FROM aggregate_versions WHERE subject <> ''"))
        return bool(count > seen)


ARGUMENTS: FieldTable = {
    "x-queue-type": "quorum",
    "x-dead-letter-exchange": "shop.retry",
    "x-dead-letter-routing-key": "shop.inbound.parked",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


@pytest.fixture
async def shop(settings: ServiceSettings, database: Database, channel: AbstractChannel) -> AsyncIterator[Shop]:
    async with broker.connect(settings.amqp_url.get_secret_value(), "publisher") as connection:
        yield Shop(settings, database, await broker.raw_channel(connection, confirms=True))


async def test_two_processes_on_a_backlog_keep_the_order_of_each_aggregate(shop: Shop) -> None:
    async with shop.process() as first, shop.process() as second:
        subjects = [str(new_id()) for _ in range(ORDERS)]
        for process in (first, second):
            process.send_signal(signal.SIGSTOP)
        for version in range(1, VERSIONS + 1):
            await asyncio.gather(*(shop.publish(subject, version) for subject in subjects))
        second.send_signal(signal.SIGCONT)
        await eventually(shop.progress)  # so far, with half of each version
        first.send_signal(signal.SIGCONT)

        async def all_processed() -> bool:
            return sum(map(len, (await shop.versions()).values())) >= ORDERS * VERSIONS

        await eventually(all_processed, within=60)
    versions = await shop.versions()
    pairs = [pair for each in versions.values() for pair in pairwise(each)]
    wrong = [pair for pair in pairs if pair[1] != pair[0] + 1]
    assert (len(pairs), len(wrong)) == (ORDERS * (VERSIONS - 1), 0)


async def test_later_events_wait_for_those_that_a_frozen_process_holds_and_no_longer(shop: Shop) -> None:
    async with shop.process() as frozen:
        await shop.publish(first := str(new_id()), 1)
        await eventually(shop.progress)  # its prefetch is one message until it has processed some
        frozen.send_signal(signal.SIGSTOP)
        subjects = [str(new_id()) for _ in range(20)]
        await asyncio.gather(*(shop.publish(subject, 1) for subject in subjects))
        async with shop.process():
            for version in range(2, VERSIONS + 1):  # the broker gives half of these to each process
                await asyncio.gather(*(shop.publish(subject, version) for subject in subjects))

            await eventually(lambda: shop.progress(1))
            assert await shop.versions() == {first: [1]}
            frozen.send_signal(signal.SIGCONT)

            async def all_processed() -> bool:
                return sum(map(len, (await shop.versions()).values())) == len(subjects) * VERSIONS + 1

            await eventually(all_processed, within=20)
    versions = await shop.versions()
    assert [versions[subject] for subject in subjects] == [list(range(1, VERSIONS + 1))] * len(subjects)
