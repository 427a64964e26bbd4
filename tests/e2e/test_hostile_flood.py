"""Floods each real consumer with messages of every kind, with honest events among them.

`WAYBILL_FLOOD` is the number of messages for each consumer.
"""

import asyncio
import base64
import hashlib
import json
import os
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import aio_pika
import asyncpg
import psutil
import pytest
from aio_pika.abc import AbstractChannel
from aiormq import Channel
from pamqp.commands import Basic

from auth.consumers import handlers as of_auth
from common.db.database import new_id, utc_now
from common.db.driver import driver_dsn
from common.messaging.broker import raw_channel
from common.messaging.cloudevents import Envelope, Undecodable, decode, encode
from common.messaging.event_handlers import EventHandlers
from common.messaging.topology import declare_producer
from common.testing.hostile_messages import changed, combined
from common.testing.plugin import MakeDatabase, eventually
from notifier.consumers import handlers as of_notifier
from orders.consumers import handlers as of_orders

from .conftest import Report

pytestmark = pytest.mark.slow

FLOOD: Final = int(os.environ.get("WAYBILL_FLOOD", "2000"))
HONEST: Final = 1000
WINDOW: Final = 500
CHECKOUT: Final = Path(__file__).parents[2]
PERSON: Final = str(new_id())
MONEY: Final = {"amount": 4900, "currency": "EUR"}
ORDER: Final[dict[str, Any]] = {
    "lines": [{"sku": "LAMP", "name": "Lamp", "quantity": 1, "unit_price": MONEY}],
    "total": MONEY,
    "customer_id": PERSON,
}
HANDLERS: Final = {"auth": of_auth, "orders": of_orders, "notifier": of_notifier}
HONEST_TYPE: Final = {
    "auth": "users.user.role_changed.v1",
    "orders": "users.user.erased.v1",
    "notifier": "orders.order.placed.v1",
}
SECRET: Final = base64.b64encode(bytes(32)).decode()
ENVIRONMENT: Final = {
    "WAYBILL_PUBLIC_URL": "http://gateway.invalid",
    "WAYBILL_AUTH_URL": "http://auth.invalid",
    "WAYBILL_USERS_URL": "http://users.invalid",
    "WAYBILL_SMTP_HOST": "smtp.invalid",
    "WAYBILL_SMTP_PORT": "25",
    "WAYBILL_SECRETS_DIR": "/nonexistent",
    "WAYBILL_RETRY_DELAYS": "0.05,0.05,0.05",
} | dict.fromkeys(
    (
        "WAYBILL_CLIENT_SECRET",
        "WAYBILL_WEBHOOK_KEY",
        "WAYBILL_KEY_ENCRYPTION_KEY",
        "WAYBILL_REFRESH_TOKEN_SECRET",
    ),
    SECRET,
)


def data_of(event_type: str) -> dict[str, Any]:
    person = {"user_id": str(new_id()), "name": "Ada", "email": "ada@example.com", "role": "staff"}
    link = {"link_id": str(new_id()), "purpose": "verify_email", "send_welcome": True}
    return {**ORDER, "order_id": str(new_id()), **person, **link, "carrier": "DHL", "tracking_number": "1"}


def honest(event_type: str) -> tuple[bytes, Basic.Properties]:
    data = data_of(event_type)
    subject = data["order_id"] if event_type.startswith("orders.") else data["user_id"]
    return encode(Envelope(new_id(), event_type, subject, 1, utc_now(), json.dumps(data)))


def flood(handlers: EventHandlers) -> Iterator[tuple[bytes, Basic.Properties]]:
    """Messages that a driver and RabbitMQ can transport: it ends the connection of a sender of NaN in a header."""
    for number, change in enumerate(combined(10 * FLOOD, seed=FLOOD)):
        event_type = handlers.types[number % len(handlers.types)]
        body, properties = changed(change, event_type, data_of(event_type))
        try:
            json.dumps(properties.headers, default=str, allow_nan=False)
            properties.marshal()
        except (ValueError, TypeError, OverflowError, struct.error):
            continue
        yield body, properties


@asynccontextmanager
async def consumer(
    service: str, database_url: str, amqp_url: str, log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = os.environ | ENVIRONMENT | {"WAYBILL_DATABASE_URL": database_url, "WAYBILL_AMQP_URL": amqp_url}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", service, "consume", "--port", "0"), env=environment, stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def send(channel: Channel, service: str, messages: list[tuple[bytes, Basic.Properties]]) -> None:
    """Through the consumer's own exchange, from which it accepts every type."""
    await asyncio.gather(
        *(
            channel.basic_publish(
                body, exchange=f"{service}.retry", routing_key=f"{service}.inbound", properties=properties
            )
            for body, properties in messages
        )
    )


@pytest.mark.parametrize("service", ["auth", "orders", "notifier"])
async def test_every_message_of_a_flood_is_parked_or_processed_and_ends_no_consumer(
    service: str, make_database: MakeDatabase, amqp_url: str, tmp_path: Path, report: Report
) -> None:
    database_url = await make_database(CHECKOUT / "services" / service / "migrations")
    started = time.monotonic()
    sent: list[tuple[bytes, Basic.Properties]] = []
    expected: list[UUID] = []
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        for producer in ("auth", "users", "orders"):
            await declare_producer(channel, producer)
        raw = await raw_channel(connection, confirms=True)
        async with consumer(service, database_url, amqp_url, tmp_path / "log") as process:
            await eventually(lambda: consumers(amqp_url, service), within=60)
            hostile = flood(HANDLERS[service])
            while len(sent) < FLOOD:
                window = [next(hostile) for _ in range(WINDOW)]
                due = HONEST * (len(sent) + WINDOW) // FLOOD - len(expected)
                mine = [honest(HONEST_TYPE[service]) for _ in range(due)]
                expected += [UUID(properties.message_id) for _, properties in mine]
                await send(raw, service, window + mine)
                sent += window
            last = honest(HONEST_TYPE[service])
            await send(raw, service, [last])
            expected.append(UUID(last[1].message_id))
            driver = await asyncpg.connect(driver_dsn(database_url))
            await eventually(lambda: has_processed(driver, service, expected), within=7200)
            await eventually(lambda: is_empty(channel, service))
            assert process.returncode is None, "the process that was started"
            used = sum(psutil.Process(process.pid).cpu_times()[:2])
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 40) == 0
        assert await is_empty(channel, service)
    parked = {row["digest"] for row in await driver.fetch("SELECT digest FROM parked_messages")}
    processed = {row["event_id"] for row in await driver.fetch("SELECT event_id FROM inbox")}
    retried = await driver.fetchval("SELECT count(*) FROM parked_messages WHERE attempts > 1")
    await driver.close()
    types = HANDLERS[service].types
    outcomes = {"parked": 0, "processed": 0, "of a type without a handler": 0}
    for body, properties in sent:
        outcomes[outcome(body, properties, parked, processed, types)] += 1
    assert set(expected) <= processed
    seconds = time.monotonic() - started
    report(f"{len(sent)} hostile: {outcomes}; {len(expected)} honest, processed; {seconds:.0f} s, {used:.0f} s of CPU")
    assert retried == 0


def outcome(
    body: bytes, properties: Basic.Properties, parked: set[bytes], processed: set[UUID], types: list[str]
) -> str:
    if hashlib.sha256(body).digest() in parked:
        return "parked"
    try:
        event = decode(body, properties)
    except Undecodable as error:
        raise AssertionError(f"neither parked nor processed: {error}, {body!r}") from None
    if event.type not in types:
        return "of a type without a handler"
    assert event.id in processed
    return "processed"


async def consumers(amqp_url: str, service: str) -> bool:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        try:
            queue = await channel.declare_queue(f"{service}.inbound", passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
        return bool(queue.declaration_result.consumer_count)


async def has_processed(driver: asyncpg.Connection, service: str, ids: list[UUID]) -> bool:
    query = "SELECT count(*) FROM inbox WHERE consumer = $1 AND event_id = ANY($2)"
    if not await driver.fetchval(query, f"{service}.inbound", ids[-1:]):
        return False
    return bool(await driver.fetchval(query, f"{service}.inbound", ids) == len(ids))


async def is_empty(channel: AbstractChannel, service: str) -> bool:
    tiers = ("", ".retry.5s", ".retry.1m", ".retry.10m", ".parked")
    queues = [await channel.declare_queue(f"{service}.inbound{tier}", passive=True) for tier in tiers]
    return not any(queue.declaration_result.message_count for queue in queues)
