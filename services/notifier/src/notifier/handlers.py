"""Use cases: functions with an explicit session. They never commit; edges do."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.database import ring_after_commit, utc_now
from notifier import queries
from notifier.models import Contact, Delivery, Kind, Notification

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
            ring_after_commit(session, DELIVERIES_CHANNEL)
    return before if is_news and before != email else None


async def forget_person(session: AsyncSession, user_id: UUID, *, version: int) -> None:
    """Erases the person, for good, with everything they were told, or were to be."""
    contact = await queries.lock_contact(session, user_id, to_erase=True)
    contact.erase(version=version)
    await queries.delete_notifications(session, user_id)
    await queries.delete_parked(session, user_id)


async def notify(
    session: AsyncSession,
    user_id: UUID,
    kind: Kind,
    *,
    event_id: UUID,
    occurred_at: datetime,
    order_id: UUID | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Tells a person something, once, and plans its mail unless they want none of that kind.

    The mail waits where the person's address is not known yet. An erased person is told nothing.
    """
    contact = await queries.contact_to_notify(session, user_id)
    if contact is not None and contact.erased:
        return
    is_new = await queries.add_notification(
        session, event_id, user_id=user_id, kind=kind, order_id=order_id, data=data or {}, created_at=occurred_at
    )
    if is_new and (contact is None or contact.wants_mail(kind)):
        is_known = contact is not None and contact.is_known
        session.add(Delivery.by_mail(event_id, waiting=not is_known))
        if is_known:
            ring_after_commit(session, DELIVERIES_CHANNEL)


async def read_notification(session: AsyncSession, notification_id: UUID, *, user_id: UUID) -> Notification:
    """Marks it as read; the first time counts. Raises `NotFound`."""
    notification = await queries.lock_notification(session, notification_id, user_id=user_id)
    notification.read(utc_now())
    return notification


async def set_preferences(session: AsyncSession, user_id: UUID, *, order_updates: bool, welcome: bool) -> Contact:
    contact = await queries.lock_contact(session, user_id)
    contact.order_updates, contact.welcome = order_updates, welcome
    return contact
