"""The broker parks a message that was received too often. That must not happen to messages that did nothing."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from aio_pika.abc import AbstractChannel
from pydantic import SecretStr
from sqlalchemy import event

from common.db.database import Database
from common.messaging import broker, consumer
from common.messaging.consumer import Consumer
from common.messaging.parked import DELIVERY_LIMIT
from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.plugin import eventually, management

from .consuming import consuming, effects, make_handlers, parked, publish
from .fatal_shop import FATAL


async def declare_with_limit(settings: ServiceSettings, database: Database, limit: int) -> None:
    vhost = urlsplit(settings.amqp_url.get_secret_value()).path[1:]
    async with management() as api:
        policy = {"pattern": r"\.inbound(\.[0-9]+)*$", "definition": {"delivery-limit": limit}}
        (await api.put(f"/api/policies/{vhost}/inbound", json=policy)).raise_for_status()
    async with consuming(settings, database):
        pass


@pytest.mark.parametrize("queues", [1, 4])
async def test_a_message_that_kills_its_process_is_parked_and_its_neighbours_are_processed(
    settings: ServiceSettings, database: Database, channel: AbstractChannel, queues: int
) -> None:
    settings = settings.model_copy(update={"queue_partitions": queues})
    await declare_with_limit(settings, database, 8)
    ids = [await publish(channel, number) for number in range(31)]

    async def is_done() -> bool:
        return len(await effects(database)) + len(await parked(database)) == 31

    async with asyncio.timeout(300):
        while not await is_done():
            process = await start_consumer(settings)
            end = asyncio.ensure_future(process.wait())
            while not end.done() and not await is_done():
                await asyncio.wait({end}, timeout=0.2)
    process.terminate()
    await end
    assert [(message.event_id, message.cause) for message in await parked(database)] == [
        (str(ids[FATAL]), DELIVERY_LIMIT)
    ]
    assert sorted(map(int, await effects(database))) == [number for number in range(31) if number != FATAL]


async def start_consumer(settings: ServiceSettings) -> asyncio.subprocess.Process:
    environment = os.environ | {
        "WAYBILL_DATABASE_URL": settings.database_url.get_secret_value(),
        "WAYBILL_AMQP_URL": settings.amqp_url.get_secret_value(),
        "WAYBILL_PUBLIC_URL": settings.public_url,
        "WAYBILL_AUTH_URL": settings.auth_url,
        "WAYBILL_SECRETS_DIR": "/nonexistent",
        "WAYBILL_QUEUE_PARTITIONS": str(settings.queue_partitions),
    }
    program = (sys.executable, Path(__file__).parent / "fatal_shop.py", "consume", "--port", "0")
    return await asyncio.create_subprocess_exec(*program, env=environment, stdout=asyncio.subprocess.DEVNULL)


class Cuttable:
    """A proxy of the broker whose connections a test can cut."""

    def __init__(self, amqp_url: str) -> None:
        self._broker = urlsplit(amqp_url)
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user, _, _ = self._broker.netloc.rpartition("@")
        return self._broker._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._broker.hostname, self._broker.port)
        self._writers += [writer, back]
        await asyncio.gather(self._forward(reader, back), self._forward(there, writer))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while content := await reader.read(65536):
                writer.write(content)
        writer.transport.abort()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def stop(self) -> None:
        self._server.close()
        self.cut()


async def test_connections_lost_during_an_outage_of_the_database_count_against_no_message(
    settings: ServiceSettings,
    database: Database,
    channel: AbstractChannel,
    postgres_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(consumer, "_OUTAGE_PAUSE", 0.05)
    await declare_with_limit(settings, database, 20)
    for number in range(100, 140):
        await publish(channel, number)
    proxy = Cuttable(settings.amqp_url.get_secret_value())
    through = settings.model_copy(update={"amqp_url": SecretStr(await proxy.start())})
    attempts: list[object] = []
    event.listen(database.engine.sync_engine, "do_connect", lambda *_: attempts.append(1))
    admin = await asyncpg.connect(postgres_server)
    name = database.engine.url.database
    stop = asyncio.Event()
    try:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        task = asyncio.ensure_future(Consumer(through, database, make_handlers(), Health()).run(stop))
        for _ in range(22):
            attempts.clear()
            await eventually(lambda: _has_tried(attempts), within=20)
            proxy.cut()
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await eventually(lambda: _has_settled(database), within=30)
    finally:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await admin.close()
        stop.set()
        await asyncio.wait_for(task, 20)
        proxy.stop()
    assert await parked(database) == []
    assert len(await effects(database)) == 40


async def _has_tried(attempts: list[object]) -> bool:
    """Twice, so that the one under way at the last cut does not count."""
    return len(attempts) >= 2


async def _has_settled(database: Database) -> bool:
    return len(await effects(database)) + len(await parked(database)) == 40
