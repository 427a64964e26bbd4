"""Queries of webhooks and their deliveries, and bulk writes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from common.errors import NotFound
from notifier.models import TEST_TYPE, State, Webhook, WebhookDelivery


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """What is needed of a new event to plan its deliveries."""

    id: UUID
    user_id: UUID
    type: str
    traceparent: str | None


async def webhooks(session: AsyncSession, user_id: UUID, *, after: UUID | None, limit: int) -> Sequence[Webhook]:
    """Newest first."""
    statement = select(Webhook).where(Webhook.user_id == user_id)
    if after is not None:
        statement = statement.where(Webhook.id < after)
    return (await session.scalars(statement.order_by(Webhook.id.desc()).limit(limit))).all()


async def count_webhooks(session: AsyncSession, user_id: UUID) -> int:
    return (await session.scalars(select(func.count()).where(Webhook.user_id == user_id))).one()


async def webhook(session: AsyncSession, webhook_id: UUID, *, user_id: UUID, lock: bool = False) -> Webhook:
    """Raises `NotFound`, also for a webhook of another person."""
    statement = select(Webhook).where(Webhook.id == webhook_id, Webhook.user_id == user_id)
    found = await session.scalar(statement.with_for_update(key_share=True) if lock else statement)
    if found is None:
        raise NotFound("There is no such webhook.")
    return found


async def delete_webhook(session: AsyncSession, webhook_id: UUID, *, user_id: UUID) -> None:
    """Deletes the webhook and its deliveries. Raises `NotFound`, also for a webhook of another person."""
    statement = delete(Webhook).where(Webhook.id == webhook_id, Webhook.user_id == user_id).returning(Webhook.id)
    if await session.scalar(statement) is None:
        raise NotFound("There is no such webhook.")


async def delete_webhooks(session: AsyncSession, user_id: UUID) -> None:
    """Deletes all webhooks of the person, and their deliveries."""
    await session.execute(delete(Webhook).where(Webhook.user_id == user_id))


async def webhook_deliveries(
    session: AsyncSession, webhook_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[WebhookDelivery]:
    """Newest event first."""
    statement = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if after is not None:
        statement = statement.where(WebhookDelivery.event_id < after)
    return (await session.scalars(statement.order_by(WebhookDelivery.event_id.desc()).limit(limit))).all()


async def count_tests(session: AsyncSession, webhook_id: UUID, *, since: UUID) -> int:
    """Counts test deliveries whose id is `since` or later."""
    statement = select(func.count()).where(
        WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.event_id >= since, WebhookDelivery.type == TEST_TYPE
    )
    return (await session.scalars(statement)).one()


async def plan_deliveries(session: AsyncSession, events: Sequence[PlannedEvent]) -> bool:
    """Plans deliveries to the webhooks that subscribe to the events. Returns whether there are any."""
    # Key share waits for a concurrent deletion of the webhook, whose row would otherwise violate the foreign key.
    statement = text("""
        INSERT INTO webhook_deliveries (webhook_id, event_id, type, host, traceparent)
        SELECT webhooks.id, events.id, events.type, webhooks.host, events.traceparent
        FROM unnest(CAST(:ids AS uuid[]), CAST(:users AS uuid[]), CAST(:types AS text[]), CAST(:traceparents AS text[]))
             AS events (id, user_id, type, traceparent)
        JOIN webhooks ON webhooks.user_id = events.user_id AND events.type = ANY (webhooks.event_types)
        FOR KEY SHARE OF webhooks
        ON CONFLICT DO NOTHING
        RETURNING webhook_id
    """)
    values = {
        "ids": [event.id for event in events],
        "users": [event.user_id for event in events],
        "types": [event.type for event in events],
        "traceparents": [event.traceparent for event in events],
    }
    planned = await session.execute(statement, values)
    return bool(planned.all())


@dataclass(frozen=True, slots=True)
class ClaimedWebhookDelivery:
    """A delivery that this process holds until the lease ends, with all that its body and signature need."""

    webhook_id: UUID
    event_id: UUID
    attempts: int
    """Including this one. Also proves the claim: another claim would have incremented it."""
    created_at: datetime
    traceparent: str | None
    type: str
    host: str
    url: str
    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None
    user_id: UUID
    order_id: UUID | None
    occurred_at: datetime | None
    data: dict[str, Any] | None
    """From the event's notification, as the two fields above. None for a test, or if the notification was deleted."""

    @property
    def key(self) -> tuple[UUID, UUID]:
        return self.webhook_id, self.event_id


_CLAIM: Final = text("""
    WITH RECURSIVE hosts (host) AS (
        (SELECT host FROM webhook_deliveries WHERE state = 'pending' ORDER BY host LIMIT 1)
        UNION ALL
        SELECT (SELECT host FROM webhook_deliveries AS next
                WHERE state = 'pending' AND next.host > hosts.host ORDER BY host LIMIT 1)
        FROM hosts WHERE hosts.host IS NOT NULL
    ), due AS (
        SELECT first.webhook_id, first.event_id
        FROM hosts
        LEFT JOIN unnest(CAST(:busy_hosts AS text[]), CAST(:busy_counts AS int[])) AS busy (host, count) USING (host)
        CROSS JOIN LATERAL (
            SELECT webhook_id, event_id, due_at FROM webhook_deliveries AS pending
            WHERE state = 'pending' AND pending.host = hosts.host AND due_at <= now()
            ORDER BY due_at LIMIT greatest(0, CAST(:per_host AS int) - coalesce(busy.count, 0))
            FOR UPDATE SKIP LOCKED
        ) AS first
        ORDER BY first.due_at LIMIT CAST(:most AS int)
    )
    UPDATE webhook_deliveries AS claimed SET due_at = now() + CAST(:lease AS interval), attempts = claimed.attempts + 1
    FROM due JOIN webhooks ON webhooks.id = due.webhook_id LEFT JOIN notifications ON notifications.id = due.event_id
    WHERE claimed.webhook_id = due.webhook_id AND claimed.event_id = due.event_id
    RETURNING claimed.webhook_id, claimed.event_id, claimed.attempts, claimed.created_at, claimed.traceparent,
        claimed.type, claimed.host, webhooks.url, webhooks.secret, webhooks.previous_secret, webhooks.previous_until,
        webhooks.user_id, notifications.order_id, notifications.created_at, notifications.data
""")
"""Steps from host to host by the index, so that a long queue of one host costs the others nothing."""


async def claim_deliveries(
    session: AsyncSession, *, limit: int, per_host: int, busy: dict[str, int], lease: timedelta
) -> list[ClaimedWebhookDelivery]:
    """Claims due deliveries, oldest first. At most `per_host` of a host, including the `busy` ones being sent."""
    values = {"busy_hosts": list(busy), "busy_counts": list(busy.values()), "per_host": per_host, "most": limit}
    rows = await session.execute(_CLAIM, values | {"lease": lease})
    return [ClaimedWebhookDelivery(*row) for row in rows]


async def renew_claims(session: AsyncSession, held: Collection[tuple[UUID, UUID]], *, lease: timedelta) -> None:
    statement = text("""
        UPDATE webhook_deliveries SET due_at = now() + CAST(:lease AS interval)
        FROM unnest(CAST(:webhook_ids AS uuid[]), CAST(:event_ids AS uuid[])) AS held (webhook_id, event_id)
        WHERE webhook_deliveries.webhook_id = held.webhook_id AND webhook_deliveries.event_id = held.event_id
        AND state = 'pending'
    """)
    webhook_ids, event_ids = zip(*held, strict=True)
    values = {"webhook_ids": list(webhook_ids), "event_ids": list(event_ids), "lease": lease}
    await session.execute(statement, values)


@dataclass(frozen=True, slots=True)
class WebhookOutcome:
    claimed: ClaimedWebhookDelivery
    state: State
    cause: str | None
    retry_in: float
    """Seconds until the next attempt, if the state is `pending`."""


async def record_outcomes(session: AsyncSession, outcomes: Sequence[WebhookOutcome]) -> None:
    """Settles deliveries, or postpones those whose outcome is `pending`.

    Settles even if the claim was lost in the meantime: the attempt has ended. Postpones only with a valid claim.
    """
    statement = text("""
        UPDATE webhook_deliveries AS delivery
        SET state = outcome.state, cause = outcome.cause, due_at = now() + make_interval(secs => outcome.retry_in),
            settled_at = CASE WHEN outcome.state <> 'pending' THEN now() END
        FROM unnest(CAST(:webhook_ids AS uuid[]), CAST(:event_ids AS uuid[]), CAST(:attempts AS int[]),
                    CAST(:states AS text[]), CAST(:causes AS text[]), CAST(:retries_in AS float8[]))
             AS outcome (webhook_id, event_id, attempts, state, cause, retry_in)
        WHERE delivery.webhook_id = outcome.webhook_id AND delivery.event_id = outcome.event_id
        AND delivery.state = 'pending' AND (outcome.state <> 'pending' OR delivery.attempts = outcome.attempts)
    """)
    values = {
        "webhook_ids": [outcome.claimed.webhook_id for outcome in outcomes],
        "event_ids": [outcome.claimed.event_id for outcome in outcomes],
        "attempts": [outcome.claimed.attempts for outcome in outcomes],
        "states": [outcome.state for outcome in outcomes],
        "causes": [outcome.cause for outcome in outcomes],
        "retries_in": [outcome.retry_in for outcome in outcomes],
    }
    await session.execute(statement, values)


async def backlog(session: AsyncSession) -> tuple[int, float]:
    """Returns the number of pending deliveries, and how many seconds the most overdue one is late."""
    pending = WebhookDelivery.state == "pending"
    late = func.greatest(func.extract("epoch", func.now() - func.min(WebhookDelivery.due_at)), 0)
    count, seconds = (await session.execute(select(func.count(), late).where(pending))).one()
    return count, float(seconds or 0)
