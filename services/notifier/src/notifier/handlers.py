"""Use cases of contacts and notifications. They take a session and never commit: routes and consumers do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import notify_after_commit, utc_now
from notifier import erasure, queries
from notifier.models import Contact, Delivery, Kind, Notification, Preference

DELIVERIES_CHANNEL: Final = "deliveries"
"""PostgreSQL channel that is notified when a mail becomes due."""


async def update_contact(session: AsyncSession, user_id: UUID, *, version: int, name: str, email: str) -> str | None:
    """Updates the contact unless `version` is outdated, and releases deliveries that wait for it.

    Returns the previous address if this one replaces it.
    """
    contact = await queries.lock_contact(session, user_id)
    previous = contact.email
    is_updated = contact.update(version=version, name=name, email=email)
    if is_updated and previous is None:
        await session.flush()
        if await queries.release_deliveries(session, user_id):
            notify_after_commit(session, DELIVERIES_CHANNEL)
    return previous if is_updated and previous != email else None


async def verify_address(session: AsyncSession, user_id: UUID, *, version: int) -> None:
    """The address of this version of the account is verified. Releases the mails that are held until then."""
    contact = await queries.lock_contact(session, user_id)
    contact.verify(version=version)
    await session.flush()
    if contact.is_verified and await queries.release_held(session, user_id):
        notify_after_commit(session, DELIVERIES_CHANNEL)


async def erase_person(session: AsyncSession, user_id: UUID, *, version: int) -> None:
    """Erases the contact permanently, and deletes the person's notifications, deliveries and parked messages."""
    contact = await queries.lock_contact(session, user_id, to_erase=True)
    contact.erase(version=version)
    await erasure.delete_notifications(session, user_id)
    await erasure.delete_parked(session, user_id)


@dataclass(frozen=True, slots=True)
class NewNotification:
    """A notification to create. Its id is that of the event."""

    event_id: UUID
    user_id: UUID
    kind: Kind
    occurred_at: datetime
    order_id: UUID | None = None
    data: dict[str, Any] = field(default_factory=dict)
    traceparent: str | None = None

    def row(self) -> dict[str, Any]:
        """The columns of the `Notification`."""
        return {
            "id": self.event_id,
            "user_id": self.user_id,
            "kind": self.kind,
            "order_id": self.order_id,
            "data": self.data,
            "created_at": self.occurred_at,
        }


async def create_notifications(session: AsyncSession, notifications: Sequence[NewNotification]) -> set[UUID]:
    """Creates each notification once, and plans its mail. Whether the person wants it counts when it is sent.

    A mail waits while the person's address is unknown. Erased people get no notification. Returns the ids of the
    notifications that are new.
    """
    contacts = await queries.contacts_to_notify(session, {each.user_id for each in notifications})
    erased = {user_id for user_id, contact in contacts.items() if contact.erased}
    created = await queries.add_notifications(
        session, [each.row() for each in notifications if each.user_id not in erased]
    )
    for notification in notifications:
        contact = contacts.get(notification.user_id)
        if notification.event_id in created:
            is_known = contact is not None and contact.is_known
            mail = Delivery.by_mail(notification.event_id, waiting=not is_known, traceparent=notification.traceparent)
            session.add(mail)
            if is_known:
                notify_after_commit(session, DELIVERIES_CHANNEL)
    return created


async def keep_erased(session: AsyncSession, notifications: Sequence[NewNotification]) -> set[UUID]:
    """Stores those of erased people without their words and without a mail, for the webhooks of clients.

    Returns the ids of those that are new.
    """
    contacts = await queries.contacts_to_notify(session, {each.user_id for each in notifications})
    rows = [each.row() for each in notifications if (of := contacts.get(each.user_id)) is not None and of.erased]
    for row in rows:
        row["data"] |= {"reason": None} if "reason" in row["data"] else {}
    return await queries.add_notifications(session, rows)


async def read_notification(session: AsyncSession, notification_id: UUID, *, user_id: UUID) -> Notification:
    """Marks it as read, unless it was before. Raises `NotFound`."""
    notification = await queries.lock_notification(session, notification_id, user_id=user_id)
    notification.read(utc_now())
    return notification


async def read_notifications(session: AsyncSession, user_id: UUID) -> None:
    """Marks all of the person's notifications as read."""
    await queries.read_notifications(session, user_id)


async def turn_off_mails(session: AsyncSession, user_id: UUID, preference: Preference) -> None:
    contact = await queries.lock_contact(session, user_id)
    if not contact.erased:
        contact.turn_off(preference)


async def set_preferences(session: AsyncSession, user_id: UUID, *, order_updates: bool, welcome: bool) -> Contact:
    contact = await queries.lock_contact(session, user_id)
    contact.order_updates, contact.welcome = order_updates, welcome
    return contact
