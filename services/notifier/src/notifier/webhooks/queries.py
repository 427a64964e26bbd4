"""Queries of webhooks and their deliveries."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Update, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from common.errors import NotFound
from notifier.models import State
from notifier.webhooks.models import (
    TEST_TYPE,
    DisabledReason,
    Owner,
    Webhook,
    WebhookAttempt,
    WebhookClient,
    WebhookDelivery,
)


def _of(owner: Owner) -> ColumnElement[bool]:
    is_owned = Webhook.user_id == owner.user_id
    if owner.client_id is not None:
        is_owned = Webhook.client_id == owner.client_id
    return is_owned & Webhook.deleted_at.is_(None)


async def webhooks(session: AsyncSession, owner: Owner, *, after: UUID | None, limit: int) -> Sequence[Webhook]:
    """Newest first."""
    statement = select(Webhook).where(_of(owner))
    if after is not None:
        statement = statement.where(Webhook.id < after)
    return (await session.scalars(statement.order_by(Webhook.id.desc()).limit(limit))).all()


async def all_webhooks(session: AsyncSession, owner: Owner | None, *, disabled: bool) -> Sequence[Webhook]:
    """Of one owner or of all, newest first."""
    statement = select(Webhook).where(Webhook.deleted_at.is_(None) if owner is None else _of(owner))
    if disabled:
        statement = statement.where(~Webhook.enabled)
    return (await session.scalars(statement.order_by(Webhook.id.desc()))).all()


async def count_webhooks(session: AsyncSession, owner: Owner) -> int:
    return (await session.scalars(select(func.count()).where(_of(owner)))).one()


async def webhook(session: AsyncSession, webhook_id: UUID, *, owner: Owner, lock: bool = False) -> Webhook:
    """Raises `NotFound`, also for a webhook of another owner.

    `lock` waits for events that are being planned for it, and makes later ones wait.
    """
    statement = select(Webhook).where(Webhook.id == webhook_id, _of(owner))
    found = await session.scalar(statement.with_for_update() if lock else statement)
    if found is None:
        raise NotFound("There is no such webhook.")
    return found


async def delete_webhook(session: AsyncSession, webhook_id: UUID, *, owner: Owner) -> None:
    """Marks the webhook as deleted (see `Webhook.deleted_at`). Raises `NotFound`, also for one of another owner."""
    statement = _mark_deleted(owner).where(Webhook.id == webhook_id).returning(Webhook.id)
    if await session.scalar(statement) is None:
        raise NotFound("There is no such webhook.")


async def delete_webhooks(session: AsyncSession, owner: Owner) -> None:
    """Marks all webhooks of the owner as deleted."""
    await session.execute(_mark_deleted(owner))


def _mark_deleted(owner: Owner) -> Update:
    reason = func.coalesce(Webhook.disabled_reason, "by_owner")
    marked = update(Webhook).where(_of(owner)).values(deleted_at=func.now(), enabled=False, disabled_reason=reason)
    return marked.execution_options(synchronize_session=False)


async def types_of_clients(session: AsyncSession) -> set[str]:
    """The types of events that webhooks of clients receive."""
    is_clients = Webhook.client_id.is_not(None) & Webhook.deleted_at.is_(None)
    return set(await session.scalars(select(func.unnest(Webhook.event_types)).where(is_clients).distinct()))


async def lock_client(session: AsyncSession, client_id: str) -> WebhookClient:
    """Returns the client, locked; creates it if needed."""
    await session.execute(insert(WebhookClient).values(client_id=client_id).on_conflict_do_nothing())
    return await session.get_one(WebhookClient, client_id, with_for_update=True)


async def lock_enabled(session: AsyncSession, user_id: UUID, *, created_until: datetime) -> Sequence[UUID]:
    """The person's enabled webhooks that were created until that time, locked."""
    statement = (
        select(Webhook.id)
        .where(Webhook.user_id == user_id, Webhook.enabled, Webhook.created_at <= created_until)
        .order_by(Webhook.id)
        .with_for_update()
    )
    return (await session.scalars(statement)).all()


async def lock_webhooks(session: AsyncSession, webhook_ids: Collection[UUID]) -> set[UUID]:
    """Locks those of the webhooks that are enabled, and returns their ids."""
    statement = select(Webhook.id).where(Webhook.id.in_(webhook_ids), Webhook.enabled)
    return set(await session.scalars(statement.order_by(Webhook.id).with_for_update()))


async def disable_webhooks(
    session: AsyncSession, webhook_ids: Collection[UUID], reason: DisabledReason
) -> Sequence[Webhook]:
    """Disables those that are enabled, and returns them. Their deliveries are not changed."""
    statement = (
        update(Webhook)
        .where(Webhook.id.in_(webhook_ids), Webhook.enabled)
        .values(enabled=False, disabled_reason=reason)
        .returning(Webhook)
    )
    return (await session.scalars(statement, execution_options={"populate_existing": True})).all()


async def deliveries(
    session: AsyncSession, webhook_id: UUID, *, state: State | None, after: UUID | None, limit: int
) -> Sequence[WebhookDelivery]:
    """Newest event first."""
    statement = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if state is not None:
        statement = statement.where(WebhookDelivery.state == state)
    if after is not None:
        statement = statement.where(WebhookDelivery.event_id < after)
    return (await session.scalars(statement.order_by(WebhookDelivery.event_id.desc()).limit(limit))).all()


async def delivery(session: AsyncSession, webhook_id: UUID, event_id: UUID) -> WebhookDelivery:
    """Raises `NotFound`."""
    found = await session.get(WebhookDelivery, (webhook_id, event_id), populate_existing=True)
    if found is None:
        raise NotFound("There is no such delivery.")
    return found


async def settled_deliveries(session: AsyncSession, chosen: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
    """The settled ones of deliveries that are named by webhook and event."""
    statement = text("""
        SELECT webhook_id, event_id FROM webhook_deliveries
        JOIN unnest(CAST(:webhook_ids AS uuid[]), CAST(:event_ids AS uuid[])) AS chosen (webhook_id, event_id)
        USING (webhook_id, event_id) WHERE settled_at IS NOT NULL
    """)
    values = {"webhook_ids": [each[0] for each in chosen], "event_ids": [each[1] for each in chosen]}
    return {(webhook_id, event_id) for webhook_id, event_id in await session.execute(statement, values)}


async def attempts(
    session: AsyncSession, webhook_id: UUID, event_id: UUID, *, since: datetime, limit: int
) -> Sequence[WebhookAttempt]:
    """The latest, oldest first."""
    statement = (
        select(WebhookAttempt)
        .where(WebhookAttempt.webhook_id == webhook_id, WebhookAttempt.event_id == event_id, WebhookAttempt.at >= since)
        .order_by(WebhookAttempt.number.desc())
        .limit(limit)
    )
    return (await session.scalars(statement)).all()[::-1]


async def count_tests(session: AsyncSession, webhook_id: UUID, *, since: UUID) -> int:
    """Counts test deliveries whose id is `since` or later."""
    statement = select(func.count()).where(
        WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.event_id >= since, WebhookDelivery.type == TEST_TYPE
    )
    return (await session.scalars(statement)).one()
