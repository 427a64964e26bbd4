"""Queries of contacts, notifications and mail deliveries, and bulk writes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Update,
    Uuid,
    bindparam,
    case,
    func,
    literal_column,
    null,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.bulk import columns_of, insert_rows
from common.errors import NotFound
from notifier import erasure
from notifier.models import Contact, Delivery, Kind, Notification, State, preference_of

# A literal, not a parameter: otherwise a generic plan could not use the partial index.
_IS_PENDING: Final[ColumnElement[bool]] = Delivery.state == literal_column("'pending'")
_IS_WAITING: Final[ColumnElement[bool]] = Delivery.state == literal_column("'waiting'")
_IS_HELD: Final[ColumnElement[bool]] = Delivery.state == literal_column("'held'")
HELD_FOR: Final = timedelta(days=7)
"""An order's mail that was held for longer is not sent any more when the address is verified."""
_FRESH: Final = {"populate_existing": True}
_FIRST_RECHECK: Final = timedelta(seconds=1)
_UNSYNCHRONIZED: Final = {"synchronize_session": False}


async def contact(session: AsyncSession, user_id: UUID) -> Contact | None:
    return await session.get(Contact, user_id)


async def contacts_to_notify(session: AsyncSession, user_ids: Collection[UUID]) -> dict[UUID, Contact]:
    """Returns the contacts, locked so that none can be erased before the commit. Waits only for an erasure."""
    among = func.unnest(bindparam("user_ids", type_=ARRAY(Uuid))).column_valued()
    statement = select(Contact).where(Contact.user_id.in_(select(among))).with_for_update(read=True, key_share=True)
    found = await session.scalars(statement, {"user_ids": sorted(user_ids)}, execution_options=_FRESH)
    return {contact.user_id: contact for contact in found}


async def lock_contact(session: AsyncSession, user_id: UUID, *, to_erase: bool = False) -> Contact:
    """Returns the contact, locked; creates it if needed. With `to_erase` the lock excludes `contacts_to_notify` too."""
    statement = select(Contact).where(Contact.user_id == user_id).with_for_update(key_share=not to_erase)
    found = await session.scalar(statement, execution_options=_FRESH)
    if found is None:
        await session.execute(insert(Contact).values(user_id=user_id).on_conflict_do_nothing())
        found = (await session.scalars(statement, execution_options=_FRESH)).one()
    return found


_ADD_NOTIFICATIONS: Final = (
    insert_rows(Notification.__table__, "id", "user_id", "kind", "order_id", "data", "created_at")
    .on_conflict_do_nothing()
    .returning(Notification.id)
)


async def add_notifications(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> set[UUID]:
    """Returns the ids of those that are new: neither the event nor the state of its order has a notification yet."""
    return set(await session.scalars(_ADD_NOTIFICATIONS, columns_of(rows))) if rows else set()


async def notifications(
    session: AsyncSession,
    user_id: UUID,
    *,
    unread: bool | None,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> Sequence[Notification]:
    """Newest first. `unread` None returns read and unread ones."""
    statement = select(Notification).where(Notification.user_id == user_id)
    if unread is not None:
        statement = statement.where(Notification.read_at.is_(None) if unread else Notification.read_at.is_not(None))
    if after is not None:
        statement = statement.where(tuple_(Notification.created_at, Notification.id) < after)
    statement = statement.order_by(Notification.created_at.desc(), Notification.id.desc()).limit(limit)
    return (await session.scalars(statement)).all()


async def count_unread(session: AsyncSession, user_id: UUID) -> int:
    unread = select(func.count()).where(Notification.user_id == user_id, Notification.read_at.is_(None))
    return (await session.scalars(unread)).one()


async def read_notifications(session: AsyncSession, user_id: UUID) -> None:
    """Marks all unread ones as read."""
    unread = update(Notification).where(Notification.user_id == user_id, Notification.read_at.is_(None))
    await session.execute(unread.values(read_at=func.now()), execution_options=_UNSYNCHRONIZED)


async def lock_notification(session: AsyncSession, notification_id: UUID, *, user_id: UUID) -> Notification:
    """Raises `NotFound`, also for a notification of another person."""
    statement = select(Notification).where(Notification.id == notification_id, Notification.user_id == user_id)
    found = await session.scalar(statement.with_for_update())
    if found is None:
        raise NotFound("There is no such notification.")
    return found


async def release_deliveries(session: AsyncSession, user_id: UUID) -> bool:
    """Makes due the deliveries that wait for this contact. Returns whether there were any.

    Misses those of transactions that are not committed yet: see `release_overlooked`.
    """
    statement = (
        update(Delivery)
        .where(_IS_WAITING, Delivery.notification_id == Notification.id, Notification.user_id == user_id)
        .values(state="pending", due_at=func.now())
        .returning(Delivery.id)
    )
    return bool((await session.execute(statement, execution_options=_UNSYNCHRONIZED)).all())


async def release_held(session: AsyncSession, user_id: UUID) -> bool:
    """Makes due what was held until the address is verified, oldest first. Cancels mails of orders that are no news.

    Returns whether there was any.
    """
    is_news = Notification.order_id.is_(None) | (Delivery.created_at > func.now() - HELD_FOR)
    statement = (
        update(Delivery)
        .where(_IS_HELD, Delivery.notification_id == Notification.id, Notification.user_id == user_id)
        .values(
            state=case((is_news, "pending"), else_="cancelled"),
            settled_at=case((is_news, null()), else_=func.now()),
            due_at=Delivery.created_at,
        )
        .returning(Delivery.id)
    )
    return bool((await session.execute(statement, execution_options=_UNSYNCHRONIZED)).all())


async def release_overlooked(session: AsyncSession, *, limit: int) -> int:
    """Releases deliveries whose contact has arrived. Deletes the notifications of erased people.

    Two concurrent transactions that create a notification and its contact do not see each other. Locks between them
    would deadlock batches, so a waiting delivery is checked again instead, after 1 s and then in growing intervals.

    Returns the number of released deliveries.
    """
    due = (
        select(Delivery.id, Contact.email, Contact.erased)
        .join(Notification, Notification.id == Delivery.notification_id)
        .outerjoin(Contact, Contact.user_id == Notification.user_id)
        .where(_IS_WAITING, Delivery.due_at <= func.now())
        .order_by(Delivery.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Delivery)
        .cte("due")
    )
    is_known = due.c.email.is_not(None)
    next_check = func.now() + func.greatest(_FIRST_RECHECK, func.now() - Delivery.created_at)
    statement = (
        update(Delivery)
        .where(Delivery.id == due.c.id)
        .values(
            state=case((is_known, "pending"), else_=Delivery.state),
            due_at=case((is_known, func.now()), else_=next_check),
        )
        .returning(Delivery.notification_id, Delivery.state, due.c.erased)
    )
    rows = (await session.execute(statement, execution_options=_UNSYNCHRONIZED)).all()
    if of_erased := [notification_id for notification_id, _, erased in rows if erased]:
        await erasure.delete_chosen(session, "notifications.id = ANY (CAST(:ids AS uuid[]))", {"ids": of_erased})
    return sum(state == "pending" for _, state, _ in rows)


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A delivery that this process holds until the lease ends, with all that its text needs."""

    id: UUID
    attempts: int
    """Including this one. Also proves the claim: another claim would have incremented it."""
    created_at: datetime
    notification_id: UUID
    user_id: UUID
    kind: Kind
    order_id: UUID | None
    data: dict[str, Any]
    occurred_at: datetime
    name: str
    email: str
    order_updates: bool
    """The person's wish now, as the next."""
    welcome: bool
    is_verified: bool
    """Whether somebody proved to receive mail at the address."""
    cause: str | None = None
    """Why the attempt before failed."""
    traceparent: str | None = None

    @property
    def is_wanted(self) -> bool:
        preference = preference_of(self.kind)
        return preference is None or bool(getattr(self, preference))

    @property
    def key(self) -> UUID:
        return self.id

    @property
    def event_id(self) -> UUID:
        return self.notification_id


async def claim_deliveries(session: AsyncSession, *, limit: int, lease: timedelta) -> list[ClaimedDelivery]:
    """Claims due deliveries, oldest first. Skips rows that another deliverer is claiming."""
    due = (
        select(Delivery.id)
        .where(_IS_PENDING, Delivery.due_at <= func.now())
        .order_by(Delivery.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    statement = (
        update(Delivery)
        .where(Delivery.id == due.c.id)
        .where(Notification.id == Delivery.notification_id, Contact.user_id == Notification.user_id)
        .values(due_at=func.now() + lease, attempts=Delivery.attempts + 1)
        .returning(
            Delivery.id,
            Delivery.attempts,
            Delivery.created_at,
            Notification.id,
            Notification.user_id,
            Notification.kind,
            Notification.order_id,
            Notification.data,
            Notification.created_at,
            Contact.name,
            Contact.email,
            Contact.order_updates,
            Contact.welcome,
            Contact.verified_version >= Contact.email_version,
            Delivery.cause,
            Delivery.traceparent,
        )
    )
    rows = await session.execute(statement, execution_options=_UNSYNCHRONIZED)
    return [ClaimedDelivery(*row) for row in rows]


async def renew_claims(session: AsyncSession, delivery_ids: Sequence[UUID], *, lease: timedelta) -> None:
    await _change(session, update(Delivery).where(Delivery.id.in_(delivery_ids)).values(due_at=func.now() + lease))


async def settle_deliveries(
    session: AsyncSession, delivery_ids: Sequence[UUID], state: State, *, cause: str | None
) -> None:
    """Settles the deliveries, even if a claim was lost in the meantime: the attempt has ended."""
    settled = update(Delivery).where(Delivery.id.in_(delivery_ids))
    await _change(session, settled.values(state=state, cause=cause, settled_at=func.now()))


async def postpone_delivery(
    session: AsyncSession, claimed: ClaimedDelivery, retry_in: float, *, cause: str | None, is_attempt: bool
) -> None:
    """Releases the claim, if it is still valid, and makes the delivery due in `retry_in` seconds."""
    postponed = update(Delivery).where(Delivery.id == claimed.id, Delivery.attempts == claimed.attempts)
    attempts, due_at = claimed.attempts - (not is_attempt), func.now() + timedelta(seconds=retry_in)
    await _change(session, postponed.values(due_at=due_at, attempts=attempts, cause=cause))


async def _change(session: AsyncSession, statement: Update) -> None:
    await session.execute(statement.where(_IS_PENDING), execution_options=_UNSYNCHRONIZED)


async def backlog(session: AsyncSession) -> tuple[int, float]:
    """Returns the number of pending deliveries, and the age of the oldest in seconds."""
    age = func.coalesce(func.extract("epoch", func.now() - func.min(Delivery.created_at)), 0)
    count, seconds = (await session.execute(select(func.count(), age).where(_IS_PENDING))).one()
    return count, float(seconds)
