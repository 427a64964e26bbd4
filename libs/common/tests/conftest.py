from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from pydantic import SecretStr

from common.db.database import Database
from common.messaging.topology import declare_producer
from common.settings import ServiceSettings
from common.testing.otlp_collector import Collector
from common.testing.plugin import MakeDatabase


class ShopSettings(ServiceSettings):
    """A made-up service that both produces and consumes."""

    service: ClassVar[str] = "shop"


@pytest.fixture
async def settings(make_database: MakeDatabase, amqp_url: str) -> ShopSettings:
    return ShopSettings(
        database_url=SecretStr(await make_database(Path(__file__).parent / "migrations")),
        amqp_url=SecretStr(amqp_url),
        public_url="http://gateway.invalid",
        auth_url="http://auth.invalid",
        retry_delays=(0.05, 0.05, 0.05),
    )


@pytest.fixture
async def database(settings: ShopSettings) -> AsyncIterator[Database]:
    database = Database(settings)
    yield database
    await database.close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await declare_producer(channel, "shop")
        yield channel
