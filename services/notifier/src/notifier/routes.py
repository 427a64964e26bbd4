"""Routes of notifications and preferences."""

from functools import partial
from typing import Annotated, Final
from uuid import UUID

from fastapi import Query

from common.web import ApiRouter, responses
from common.web.pagination import Page, PageDep, instant
from common.web.session import SessionDep
from notifier import handlers, queries
from notifier.deps import ReaderDep, WriterDep
from notifier.schemas import NotificationOut, Preferences, PreferencesOut, UnreadCount

router: Final = ApiRouter(tags=["notifications"])


@router.get("/notifications")
async def list_notifications(
    page: PageDep,
    principal: ReaderDep,
    session: SessionDep,
    unread: Annotated[bool | None, Query(description="Only unread notifications, or only read ones.")] = None,
) -> Page[NotificationOut]:
    """Lists your notifications, newest first."""
    fetch = partial(queries.notifications, session, principal.user_id, unread=unread)
    return await page.load(fetch, by={"created_at": instant, "id": UUID}, item=NotificationOut.model_validate)


@router.get("/notifications/unread-count")
async def count_unread_notifications(principal: ReaderDep, session: SessionDep) -> UnreadCount:
    """Counts your unread notifications."""
    return UnreadCount(count=await queries.count_unread(session, principal.user_id))


@router.post("/notifications/read", status_code=204)
async def read_notifications(principal: WriterDep, session: SessionDep) -> None:
    """Marks all of your notifications as read."""
    await handlers.read_notifications(session, principal.user_id)


@router.post("/notifications/{notification_id}/read", responses=responses(404))
async def read_notification(notification_id: UUID, principal: WriterDep, session: SessionDep) -> NotificationOut:
    """Marks a notification as read. Repeating it changes nothing."""
    notification = await handlers.read_notification(session, notification_id, user_id=principal.user_id)
    return NotificationOut.model_validate(notification)


@router.get("/notification-preferences")
async def get_notification_preferences(principal: ReaderDep, session: SessionDep) -> PreferencesOut:
    """Returns which mails you receive."""
    contact = await queries.contact(session, principal.user_id)
    return PreferencesOut.model_validate(contact) if contact is not None else PreferencesOut()


@router.put("/notification-preferences")
async def set_notification_preferences(body: Preferences, principal: WriterDep, session: SessionDep) -> PreferencesOut:
    """Sets which mails you receive."""
    contact = await handlers.set_preferences(
        session, principal.user_id, order_updates=body.order_updates, welcome=body.welcome
    )
    return PreferencesOut.model_validate(contact)
