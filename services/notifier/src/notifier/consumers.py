"""Events in, notifications out. The models name only what is needed of an event; unknown fields are ignored."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from common.messaging.event_handlers import EventHandlers, Received
from notifier.handlers import Notice, forget_person, learn_contact, notify
from notifier.models import Kind, OrderKind
from notifier.webhooks import handlers as webhook_handlers
from notifier.webhooks.queries import PlannedEvent

Line = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
"""PostgreSQL's text can't hold NUL: an event with one doesn't fit, and is parked at once."""


class Reader(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Money(Reader):
    amount: int
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class Person(Reader):
    user_id: UUID


class Profile(Person):
    name: Line
    email: Line


class Registration(Profile):
    send_welcome: bool


class LinkRequest(Person):
    link_id: UUID
    purpose: Literal["verify_email", "reset_password"]


class Whole(Reader):
    """Kept as it came: webhooks pass it on, with what this version does not know."""

    model_config = ConfigDict(extra="allow", frozen=True)


class OrderLine(Whole):
    name: Line
    quantity: int
    unit_price: Money


class Order(Whole):
    """An order in whatever state; what a state adds is in its own model."""

    order_id: UUID
    customer_id: UUID
    total: Money


class PlacedOrder(Order):
    lines: list[OrderLine]


class ShippedOrder(Order):
    carrier: Line
    tracking_number: Line


class CancelledOrder(Order):
    reason: Line | None = None


handlers: Final = EventHandlers(in_order=["orders.order"])


@handlers.on("users.user.registered.v1", Registration)
async def user_registered(session: AsyncSession, event: Received[Registration]) -> None:
    person = event.data
    await learn_contact(session, person.user_id, version=event.version, name=person.name, email=person.email)
    if person.send_welcome:
        await notify(session, [_notice(event, "welcome")])


@handlers.on("users.user.updated.v1", Profile)
async def user_updated(session: AsyncSession, event: Received[Profile]) -> None:
    """A new address is told to the one before: whoever is signed in for somebody else must not take the account."""
    person, version = event.data, event.version
    before = await learn_contact(session, person.user_id, version=version, name=person.name, email=person.email)
    if before is not None:
        await notify(session, [_notice(event, "email_changed", email=before)])


@handlers.on("users.user.erased.v1", Person)
async def user_erased(session: AsyncSession, event: Received[Person]) -> None:
    await forget_person(session, event.data.user_id, version=event.version)


@handlers.on("users.user.password_changed.v1", Person)
async def password_changed(session: AsyncSession, event: Received[Person]) -> None:
    await notify(session, [_notice(event, "password_changed")])


@handlers.on("users.secret_link.requested.v1", LinkRequest)
async def secret_link_requested(session: AsyncSession, event: Received[LinkRequest]) -> None:
    """The secret is made when the mail is written; until then there is only the link's id."""
    link = event.data
    await notify(session, [_notice(event, link.purpose, link_id=str(link.link_id))])


def _notice(event: Received[Any], kind: Kind, **data: str) -> Notice:
    return Notice(event.id, event.data.user_id, kind, event.time, data=data, traceparent=event.traceparent)


_ORDER_EVENTS: Final[dict[str, tuple[type[Order], OrderKind]]] = {
    "orders.order.placed.v1": (PlacedOrder, "order_placed"),
    "orders.order.confirmed.v1": (Order, "order_confirmed"),
    "orders.order.shipped.v1": (ShippedOrder, "order_shipped"),
    "orders.order.delivered.v1": (Order, "order_delivered"),
    "orders.order.cancelled.v1": (CancelledOrder, "order_cancelled"),
}


@handlers.on_batch({event_type: model for event_type, (model, _) in _ORDER_EVENTS.items()})
async def orders_changed(session: AsyncSession, events: Sequence[Received[Order]]) -> None:
    """Each state is told of by itself, in whatever order the events come: no state is skipped for a newer one."""
    told = await notify(session, [_of_order(event) for event in events])
    new = [event for event in events if event.id in told]
    await webhook_handlers.plan(
        session, [PlannedEvent(event.id, event.data.customer_id, event.type, event.traceparent) for event in new]
    )


def _of_order(event: Received[Order]) -> Notice:
    order, (_, kind) = event.data, _ORDER_EVENTS[event.type]
    data = order.model_dump(mode="json", exclude={"order_id", "customer_id"})
    return Notice(event.id, order.customer_id, kind, event.time, order.order_id, data, event.traceparent)
