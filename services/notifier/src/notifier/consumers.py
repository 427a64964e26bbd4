"""Events in, notifications out. Each model declares only the fields that notifier needs; others are ignored."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, FailFast, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from common.messaging.event_handlers import EventHandlers, Received
from notifier.handlers import (
    NewNotification,
    create_notifications,
    erase_person,
    keep_erased,
    update_contact,
    verify_address,
)
from notifier.models import Kind, LinkKind, OrderKind
from notifier.webhooks import handlers as webhook_handlers
from notifier.webhooks import queries as webhook_queries
from notifier.webhooks.models import Owner
from notifier.webhooks.planning import PlannedEvent


class ReaderModel(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Money(ReaderModel):
    amount: int
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class Person(ReaderModel):
    user_id: UUID


class Profile(Person):
    name: str
    email: str


class Registration(Profile):
    send_welcome: bool


class LinkRequest(Person):
    link_id: UUID
    purpose: LinkKind


class PasswordChange(Person):
    by: Literal["change", "reset"] | None = None


class AuthenticatorChange(Person):
    change: Literal["added", "removed", "recovery_code_used"]


class SignIn(Person):
    is_new_device: bool | None = None
    device: str | None = None


class SubjectRevocation(ReaderModel):
    subject: str
    reason: str


class PassThroughModel(ReaderModel):
    """Keeps unknown fields, because webhooks pass the whole event on."""

    model_config = ConfigDict(extra="allow", frozen=True)


class OrderLine(PassThroughModel):
    name: str
    quantity: int
    unit_price: Money


class Order(PassThroughModel):
    """An order in any state. Subclasses add the fields of one state."""

    order_id: UUID
    customer_id: UUID
    total: Money


class PlacedOrder(Order):
    lines: Annotated[list[OrderLine], FailFast()]  # a list can have hundreds of thousands of faults


class ShippedOrder(Order):
    carrier: str
    tracking_number: str


class CancelledOrder(Order):
    reason: str | None = None


_MAX_DEVICE: Final = 200

handlers: Final = EventHandlers(in_order=["orders.order"])


@handlers.on("users.user.registered.v1", Registration)
async def user_registered(session: AsyncSession, event: Received[Registration]) -> None:
    person = event.data
    await update_contact(session, person.user_id, version=event.version, name=person.name, email=person.email)
    if person.send_welcome:
        await create_notifications(session, [_personal(event, "welcome")])


@handlers.on("users.user.updated.v1", Profile)
async def user_updated(session: AsyncSession, event: Received[Profile]) -> None:
    """Notifies the previous address of a new one, so that the owner notices when somebody takes over the account."""
    person, version = event.data, event.version
    previous = await update_contact(session, person.user_id, version=version, name=person.name, email=person.email)
    if previous is not None:
        await create_notifications(session, [_personal(event, "email_changed", email=previous)])


@handlers.on("users.user.erased.v1", Person)
async def user_erased(session: AsyncSession, event: Received[Person]) -> None:
    await erase_person(session, event.data.user_id, version=event.version)
    await webhook_queries.delete_webhooks(session, Owner(user_id=event.data.user_id))


@handlers.on("users.user.email_verified.v1", Person)
async def email_verified(session: AsyncSession, event: Received[Person]) -> None:
    await verify_address(session, event.data.user_id, version=event.version)


@handlers.on("users.user.password_changed.v1", PasswordChange)
async def password_changed(session: AsyncSession, event: Received[PasswordChange]) -> None:
    """A reset takes an account back from somebody who may have added webhooks, so it disables them."""
    data = await _recovered(session, event) if event.data.by == "reset" else {}
    await create_notifications(session, [_personal(event, "password_changed", **data)])


@handlers.on("auth.subject.revoked.v1", SubjectRevocation)
async def subject_revoked(session: AsyncSession, event: Received[SubjectRevocation]) -> None:
    """A deleted client's webhooks end with it."""
    if event.data.reason == "client_deleted":
        await webhook_handlers.end_client(session, event.data.subject)


@handlers.on("users.user.email_reverted.v1", Person)
async def email_reverted(session: AsyncSession, event: Received[Person]) -> None:
    """As after a reset of the password."""
    data = await _recovered(session, event)
    await create_notifications(session, [_personal(event, "email_reverted", **data)])


async def _recovered(session: AsyncSession, event: Received[Any]) -> dict[str, str]:
    """Disables the person's webhooks. Returns what the mail says about it."""
    count = await webhook_handlers.disable_recovered(session, event.data.user_id, recovered_at=event.time)
    return {"webhooks_disabled": str(count)} if count else {}


@handlers.on("users.user.authenticator_changed.v1", AuthenticatorChange)
async def authenticator_changed(session: AsyncSession, event: Received[AuthenticatorChange]) -> None:
    await create_notifications(session, [_personal(event, "authenticator_changed", change=event.data.change)])


@handlers.on("users.user.deactivated.v1", Person)
async def user_deactivated(session: AsyncSession, event: Received[Person]) -> None:
    await create_notifications(session, [_personal(event, "account_deactivated")])


@handlers.on("users.user.reactivated.v1", Person)
async def user_reactivated(session: AsyncSession, event: Received[Person]) -> None:
    await create_notifications(session, [_personal(event, "account_reactivated")])


@handlers.on("auth.session.started.v1", SignIn)
async def session_started(session: AsyncSession, event: Received[SignIn]) -> None:
    """Notifies of a device that is new to an account which has signed in before. The device describes itself."""
    if event.data.is_new_device:
        device = (event.data.device or "")[:_MAX_DEVICE]
        await create_notifications(session, [_personal(event, "new_sign_in", device=device)])


@handlers.on("users.secret_link.requested.v1", LinkRequest)
async def secret_link_requested(session: AsyncSession, event: Received[LinkRequest]) -> None:
    """Stores only the id of the link. Its secret is issued when the mail is composed."""
    link = event.data
    await create_notifications(session, [_personal(event, link.purpose, link_id=str(link.link_id))])


def _personal(event: Received[Any], kind: Kind, **data: str) -> NewNotification:
    return NewNotification(event.id, event.data.user_id, kind, event.time, data=data, traceparent=event.traceparent)


_ORDER_EVENTS: Final[dict[str, tuple[type[Order], OrderKind]]] = {
    "orders.order.placed.v1": (PlacedOrder, "order_placed"),
    "orders.order.confirmed.v1": (Order, "order_confirmed"),
    "orders.order.shipped.v1": (ShippedOrder, "order_shipped"),
    "orders.order.delivered.v1": (Order, "order_delivered"),
    "orders.order.cancelled.v1": (CancelledOrder, "order_cancelled"),
}
"""The events that webhooks can receive (`notifier.webhooks.models.EventType`), each with its notification.

A webhook's `data` is the notification's: the event is stored once, and an event without a notification can't be posted.
"""


@handlers.on_batch({event_type: model for event_type, (model, _) in _ORDER_EVENTS.items()})
async def orders_changed(session: AsyncSession, events: Sequence[Received[Order]]) -> None:
    """Creates a notification for each state, in whatever order the events arrive: a newer state replaces no older one.

    Webhooks receive the events whose notification is new, so that a repeated event is not posted again. Clients receive
    those of erased people too.
    """
    created = await create_notifications(session, [_of_order(event) for event in events])
    rest = [event for event in events if event.id not in created]
    if rest and (types := await webhook_queries.types_of_clients(session)):
        created |= await keep_erased(session, [_of_order(event) for event in rest if event.type in types])
    new = [event for event in events if event.id in created]
    await webhook_handlers.plan(
        session,
        [
            PlannedEvent(
                id=event.id,
                user_id=event.data.customer_id,
                type=event.type,
                order_id=event.data.order_id,
                order_version=event.version,
                traceparent=event.traceparent,
            )
            for event in new
        ],
    )


def _of_order(event: Received[Order]) -> NewNotification:
    order, (_, kind) = event.data, _ORDER_EVENTS[event.type]
    data = order.model_dump(mode="json", exclude={"order_id", "customer_id"})
    return NewNotification(event.id, order.customer_id, kind, event.time, order.order_id, data, event.traceparent)
