"""Counts an event relayed and an event consumed."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, ClassVar, Final
from uuid import UUID

import aio_pika
import asyncpg
from aiormq import Channel
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from bench.backbone import EFFECT, TYPE, WINDOW, ShopSettings, Sold, consuming, published, relaying, until_published
from bench.backbone import MIGRATIONS as BACKBONE_MIGRATIONS
from bench.meter import Cost, Meter, metered
from bench.shop import MIGRATIONS, ROOT, SKUS
from common.db.database import Database, new_id, utc_now
from common.messaging import broker, topology
from common.messaging.cloudevents import Envelope, encode, exchange_of
from common.messaging.deliveries import BATCH as FULL_DELIVERIES
from common.messaging.event_handlers import EventHandlers, Received
from common.messaging.relay_worker import BATCH as FULL_OUTBOX
from common.settings import ServiceSettings
from common.testing.plugin import eventually, private_vhost
from notifier.consumers import handlers as notifier

EVENTS: Final = 6000
"""Enough for full batches after the relay's small first ones."""
PLACED: Final = "orders.order.placed.v1"
REGISTERED: Final = "users.user.registered.v1"


class OrdersSettings(ServiceSettings):
    service: ClassVar[str] = "orders"


class NotifierSettings(ServiceSettings):
    service: ClassVar[str] = "notifier"


def _addresses(database_url: str, amqp_url: str) -> dict[str, Any]:
    urls = {"public_url": "http://gateway.invalid", "auth_url": "http://auth.invalid"}
    return {"database_url": SecretStr(database_url), "amqp_url": SecretStr(amqp_url), **urls}


async def event_relayed() -> Cost:
    async with metered(MIGRATIONS) as meter, private_vhost() as amqp_url:
        connection = await asyncpg.connect(meter.direct_url)
        await connection.execute(
            "INSERT INTO outbox (event_id, type, subject, version, occurred_at, data)"
            " SELECT gen_random_uuid(), $1, n::text, 1, now(), $3::jsonb FROM generate_series(1, $2::int) n",
            PLACED,
            EVENTS,
            json.dumps(_placed(new_id(), new_id())),
        )
        await connection.close()
        await meter.begin()
        before = published()
        async with relaying(OrdersSettings(**_addresses(meter.url, amqp_url))):
            await until_published(before + EVENTS)
        return await meter.of_batches("INSERT INTO event_log", EVENTS, FULL_OUTBOX)


async def event_consumed() -> Cost:
    """With an inbox row, in the order of its aggregate, and one insert as its effect."""
    handlers = EventHandlers(in_order=["shop.item"])

    @handlers.on_batch({TYPE: Sold})
    async def sold(session: AsyncSession, batch: Sequence[Received[Sold]]) -> None:
        await session.execute(EFFECT, {"ids": [event.id for event in batch]})

    async with metered(BACKBONE_MIGRATIONS) as meter, private_vhost() as amqp_url:
        settings = ShopSettings(**_addresses(meter.url, amqp_url))
        events = [_event(TYPE, new_id(), {"number": 1}) for _ in range(EVENTS // 4)]
        return await _consumed(meter, settings, handlers, [], events)


async def event_consumed_by_notifier() -> Cost:
    """Each makes a notification and plans a mail."""
    async with metered(ROOT / "services/notifier/migrations") as meter, private_vhost() as amqp_url:
        settings, customer = NotifierSettings(**_addresses(meter.url, amqp_url)), new_id()
        contact = {"user_id": str(customer), "name": "Ada", "email": "ada@bench.example", "send_welcome": False}
        ids = [new_id() for _ in range(EVENTS // 4)]
        events = [_event(PLACED, each, _placed(each, customer)) for each in ids]
        return await _consumed(meter, settings, notifier, [_event(REGISTERED, customer, contact)], events)


async def _consumed(
    meter: Meter,
    settings: ServiceSettings,
    handlers: EventHandlers,
    before: Sequence[Envelope],
    events: Sequence[Envelope],
) -> Cost:
    """Counts the consuming of `events`, all of which wait in the queue, after those `before`."""
    amqp_url = settings.amqp_url.get_secret_value()
    async with await aio_pika.connect(amqp_url) as amqp:
        channel = await amqp.channel()
        for exchange in {exchange for exchange, _ in handlers.bindings}:
            await topology.declare_producer(channel, exchange.removesuffix(".events"))
    async with Database(settings) as database:
        async with consuming(settings, database, handlers):  # declares the queue as well
            await _publish(amqp_url, before)
            await _until_consumed(meter, len(before))
        await _publish(amqp_url, events)
        await meter.begin()
        async with consuming(settings, database, handlers):
            await _until_consumed(meter, len(before) + len(events))
    return await meter.of_batches("INSERT INTO inbox", len(events), FULL_DELIVERIES)


def _event(event_type: str, subject: UUID, data: dict[str, Any]) -> Envelope:
    return Envelope(new_id(), event_type, str(subject), 1, utc_now(), json.dumps(data))


def _placed(order_id: UUID, customer: UUID) -> dict[str, Any]:
    price = {"amount": 4900, "currency": "EUR"}
    lines = [{"sku": sku, "name": "Desk lamp", "quantity": 1, "unit_price": price} for sku in SKUS]
    ids = {"order_id": str(order_id), "customer_id": str(customer)}
    return {**ids, "lines": lines, "total": {"amount": 14700, "currency": "EUR"}, "placed_at": "2026-01-01T12:00:00Z"}


async def _publish(amqp_url: str, events: Sequence[Envelope]) -> None:
    async with broker.connect(amqp_url, "bench") as amqp:
        channel = await broker.raw_channel(amqp, confirms=True)
        for first in range(0, len(events), WINDOW):
            await asyncio.gather(*(_send(channel, event) for event in events[first : first + WINDOW]))


async def _send(channel: Channel, event: Envelope) -> None:
    body, properties = encode(event)
    await channel.basic_publish(
        body, exchange=exchange_of(event.service), routing_key=event.type, properties=properties, mandatory=True
    )


async def _until_consumed(meter: Meter, count: int) -> None:
    connection = await asyncpg.connect(meter.direct_url)

    async def is_reached() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM inbox") >= count)

    await eventually(is_reached, within=60)
    await connection.close()
