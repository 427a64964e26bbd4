"""What tests do to notifier and observe of it."""

import json
from collections.abc import Sequence
from typing import Any, Final, get_args
from uuid import UUID

import httpx
from sqlalchemy import text

from common.db.database import Database, new_id, utc_now
from common.messaging.cloudevents import Envelope
from common.messaging.event_handlers import Received
from notifier.consumers import handlers
from notifier.webhooks import handlers as webhook_handlers
from notifier.webhooks.models import EventType, Owner
from notifier.webhooks.secrets import SecretBox, encode_secret

KEY: Final = bytes(range(32))
EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)


class World:
    """Events, webhooks and tables of one test."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def event(
        self,
        event_type: str,
        *,
        version: int = 1,
        event_id: UUID | None = None,
        **data: Any,
    ) -> UUID:
        """Processes an event in its own transaction."""
        event = received(event_type, version=version, event_id=event_id, **data)
        async with self.database.transaction() as session:
            await handlers.handle(session, event)
        return event.id

    async def registered(self, user_id: UUID, *, version: int = 1, **fields: Any) -> UUID:
        data: dict[str, Any] = {"name": "Ann", "email": f"{user_id}@example.com", "send_welcome": False} | fields
        return await self.event("users.user.registered.v1", user_id=str(user_id), version=version, **data)

    async def order(
        self, state: str, customer_id: UUID, order_id: UUID | None = None, *, version: int = 1, **fields: Any
    ) -> UUID:
        """Processes an event of an order. Returns the order's id."""
        order_id = order_id or new_id()
        data = order_data(state, customer_id, order_id, **fields)
        await self.event(f"orders.order.{state}.v1", version=version, **data)
        return order_id

    async def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        async with self.database.transaction() as session:
            return [dict(row) for row in (await session.execute(text(statement), values)).mappings()]

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.database.transaction() as session:
            await session.execute(text(statement), values)

    async def deliveries(self) -> list[dict[str, Any]]:
        return await self.rows("SELECT * FROM deliveries ORDER BY created_at, id")

    async def states(self) -> list[str]:
        return [delivery["state"] for delivery in await self.deliveries()]

    async def webhook(
        self, owner: UUID | str, url: str = "https://hooks.example/x", *, event_types: Sequence[EventType] = EVENT_TYPES
    ) -> tuple[UUID, str]:
        """Creates a webhook of a person or a client. Returns its id and secret."""
        owned_by = Owner(client_id=owner) if isinstance(owner, str) else Owner(user_id=owner)
        async with self.database.transaction() as session:
            created, secret = await webhook_handlers.create(
                session, SecretBox(KEY), owned_by, url=httpx.URL(url), event_types=event_types
            )
        return created.id, encode_secret(secret)

    async def posts(self) -> list[dict[str, Any]]:
        """The deliveries to webhooks."""
        return await self.rows("SELECT * FROM webhook_deliveries ORDER BY created_at, event_id")

    async def post_states(self) -> list[str]:
        return [post["state"] for post in await self.posts()]

    async def kinds(self, user_id: UUID) -> list[str]:
        rows = await self.rows("SELECT kind FROM notifications WHERE user_id = :id ORDER BY kind", id=user_id)
        return [row["kind"] for row in rows]


def received(event_type: str, *, version: int = 1, event_id: UUID | None = None, **data: Any) -> Received[Any]:
    event = handlers.decode(envelope(event_type, version=version, event_id=event_id, **data))
    assert event is not None
    return event


def envelope(event_type: str, *, version: int = 1, event_id: UUID | None = None, **data: Any) -> Envelope:
    return Envelope(event_id or new_id(), event_type, "subject", version, utc_now(), json.dumps(data))


def order_data(state: str, customer_id: UUID, order_id: UUID, **fields: Any) -> dict[str, Any]:
    price = {"amount": 1234, "currency": "EUR"}
    extra: dict[str, dict[str, Any]] = {
        "placed": {"lines": [{"sku": "LAMP-1", "name": "Lamp", "quantity": 2, "unit_price": price}]},
        "shipped": {"carrier": "DHL", "tracking_number": "JD014600003"},
        "cancelled": {"reason": None, "cancelled_by": "staff"},
    }
    data = {"order_id": str(order_id), "customer_id": str(customer_id), "total": {"amount": 2468, "currency": "EUR"}}
    return data | extra.get(state, {}) | fields


async def holds(condition: bool) -> bool:
    """A condition on memory, for `eventually`."""
    return condition
