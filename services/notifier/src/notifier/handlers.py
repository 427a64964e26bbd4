"""Use cases: functions with an explicit session. They never commit; edges do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import notify_after_commit, utc_now
from notifier import queries
from notifier.models import Contact, Delivery, Kind, Notification
from notifier.webhooks import queries as webhook_queries

DELIVERIES_CHANNEL: Final = "deliveries"
"""Rung when a delivery falls due."""


async def learn_contact(session: AsyncSession, user_id: UUID, *, version: int, name: str, email: str) -> str | None:
    """Takes what users tells of a person, unless it is old news, and releases what waits for it.

    Returns the address before, where this is another one.
    """
    contact = await queries.lock_contact(session, user_id)
    before = contact.email
    is_news = contact.learn(version=version, name=name, email=email)
    if is_news and before is None:
        await session.flush()
        if await queries.release_deliveries(session, user_id):
            notify_after_commit(session, DELIVERIES_CHANNEL)
    return before if is_news and before != email else None


async def forget_person(session: AsyncSession, user_id: UUID, *, version: int) -> None:
    """Erases the person, for good, with everything they were told, or were to be, and their webhooks."""
    contact = await queries.lock_contact(session, user_id, to_erase=True)
    contact.erase(version=version)
    await queries.delete_notifications(session, user_id)
    await queries.delete_parked(session, user_id)
    await webhook_queries.delete_webhooks(session, user_id)


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person is to be told, and by which event."""

    event_id: UUID
    user_id: UUID
    kind: Kind
    occurred_at: datetime
    order_id: UUID | None = None
    data: dict[str, Any] = field(default_factory=dict)
    traceparent: str | None = None

    def row(self) -> dict[str, Any]:
        """The notification's."""
        return {
            "id": self.event_id,
            "user_id": self.user_id,
            "kind": self.kind,
            "order_id": self.order_id,
            "data": self.data,
            "created_at": self.occurred_at,
        }


async def notify(session: AsyncSession, notices: Sequence[Notice]) -> set[UUID]:
    """Tells people things, each once, and plans their mails unless they want none of that kind.

    A mail waits where the person's address is not known yet. An erased person is told nothing. Returns the ids of the
    events that were told of now.
    """
    contacts = await queries.contacts_to_notify(session, {notice.user_id for notice in notices})
    erased = {user_id for user_id, contact in contacts.items() if contact.erased}
    told = await queries.add_notifications(
        session, [notice.row() for notice in notices if notice.user_id not in erased]
    )
    for notice in notices:
        contact = contacts.get(notice.user_id)
        if notice.event_id in told and (contact is None or contact.wants_mail(notice.kind)):
            is_known = contact is not None and contact.is_known
            mail = Delivery.by_mail(notice.event_id, waiting=not is_known, traceparent=notice.traceparent)
            session.add(mail)
            if is_known:
                notify_after_commit(session, DELIVERIES_CHANNEL)
    return told


async def read_notification(session: AsyncSession, notification_id: UUID, *, user_id: UUID) -> Notification:
    """Marks it as read; the first time counts. Raises `NotFound`."""
    notification = await queries.lock_notification(session, notification_id, user_id=user_id)
    notification.read(utc_now())
    return notification


async def set_preferences(session: AsyncSession, user_id: UUID, *, order_updates: bool, welcome: bool) -> Contact:
    contact = await queries.lock_contact(session, user_id)
    contact.order_updates, contact.welcome = order_updates, welcome
    return contact
