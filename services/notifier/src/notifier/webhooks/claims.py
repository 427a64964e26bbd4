"""Claims of due webhook deliveries, shared fairly between owners and hosts."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from notifier.webhooks.models import TEST_TYPE, WebhookDelivery

_PER_HOST: Final = 4


@dataclass(frozen=True, slots=True)
class ClaimedWebhookDelivery:
    """A delivery that this process holds until the lease ends, with all that its body and signature need."""

    webhook_id: UUID
    event_id: UUID
    number: int
    """Of this attempt. Also proves the claim: another claim would have incremented it."""
    attempts: int
    """Including this one, since the delivery was planned or sent again."""
    created_at: datetime
    traceparent: str | None
    type: str
    host: str
    owner: str
    is_answering: bool
    url: str
    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None
    customer_id: UUID | None
    order_id: UUID | None
    occurred_at: datetime | None
    data: dict[str, Any] | None
    """From the event's notification, as the three fields above. None for a test, or if the notification was deleted."""

    @property
    def key(self) -> tuple[UUID, UUID]:
        return self.webhook_id, self.event_id


@dataclass(frozen=True, slots=True)
class Shares:
    """The most requests that one deliverer sends concurrently."""

    per_host: int
    """A slow host delays only its own deliveries."""
    per_owner: int
    """To webhooks that are answering, and as many to others: whoever has many slow hosts delays only their own."""
    unproven: int
    """To webhooks that are not answering, of all owners. The rest is reserved for those that are."""

    @classmethod
    def of(cls, slots: int) -> Self:
        """Of a deliverer with so many slots."""
        return cls(per_host=_PER_HOST, per_owner=max(1, slots // 8), unproven=max(1, slots * 3 // 4))


_CLAIM: Final = text("""
    WITH RECURSIVE queues (webhook_id) AS (
        (SELECT webhook_id FROM webhook_deliveries WHERE state = 'pending' ORDER BY webhook_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT webhook_id FROM webhook_deliveries
            WHERE state = 'pending' AND webhook_id > queues.webhook_id ORDER BY webhook_id LIMIT 1
        ) FROM queues WHERE queues.webhook_id IS NOT NULL
    ), busy_hosts AS (
        SELECT * FROM unnest(CAST(:busy_hosts AS text[]), CAST(:busy_host_counts AS int[])) AS busy (host, count)
    ), busy_owners AS (
        SELECT * FROM unnest(
            CAST(:busy_owners AS text[]), CAST(:busy_answering AS bool[]), CAST(:busy_owner_counts AS int[])
        ) AS busy (owner, is_answering, count)
    ), due AS (
        SELECT first.webhook_id, first.event_id, first.due_at, webhooks.host, webhooks.is_answering,
            coalesce(CAST(webhooks.user_id AS text), webhooks.client_id) AS owner,
            coalesce(busy.count, 0) AS busy_host,
            turn.is_retry AND first.due_at > now() - CAST(:patience AS interval) AS is_later
        FROM queues
        JOIN webhooks ON webhooks.id = queues.webhook_id AND (enabled OR deleted_at IS NULL AND EXISTS (
            SELECT FROM webhook_deliveries AS test
            WHERE test.webhook_id = queues.webhook_id AND test.state = 'pending' AND test.order_id IS NULL
        ))
        LEFT JOIN busy_hosts AS busy ON busy.host = webhooks.host
        CROSS JOIN (VALUES (false), (true)) AS turn (is_retry)
        CROSS JOIN LATERAL (
            SELECT webhook_id, event_id, due_at FROM webhook_deliveries AS pending
            WHERE state = 'pending' AND pending.webhook_id = queues.webhook_id AND pending.is_retry = turn.is_retry
            AND due_at <= now() AND (webhooks.enabled OR type = :test)
            ORDER BY due_at LIMIT greatest(0, CAST(:per_host AS int) - coalesce(busy.count, 0))
            FOR UPDATE SKIP LOCKED
        ) AS first
    ), of_host AS (
        SELECT *, busy_host + row_number() OVER (PARTITION BY host ORDER BY is_later, due_at) AS host_place FROM due
    ), of_owner AS (
        SELECT of_host.*, coalesce(busy.count, 0)
            + row_number() OVER (PARTITION BY owner, is_answering ORDER BY is_later, due_at) AS owner_place
        FROM of_host LEFT JOIN busy_owners AS busy USING (owner, is_answering)
        WHERE host_place <= CAST(:per_host AS int)
    ), ranked AS (
        SELECT *, row_number() OVER (PARTITION BY is_answering ORDER BY is_later, owner_place, due_at) AS place
        FROM of_owner WHERE owner_place <= CAST(:per_owner AS int)
    ), chosen AS (
        SELECT webhook_id, event_id FROM ranked WHERE is_answering OR place <= CAST(:room AS int)
        ORDER BY is_later, owner_place, due_at LIMIT :most
    )
    UPDATE webhook_deliveries AS claimed
    SET due_at = now() + CAST(:lease AS interval), attempts = claimed.attempts + 1, is_retry = true
    FROM chosen JOIN webhooks ON webhooks.id = chosen.webhook_id
    LEFT JOIN notifications ON notifications.id = chosen.event_id
    WHERE claimed.webhook_id = chosen.webhook_id AND claimed.event_id = chosen.event_id
    RETURNING claimed.webhook_id, claimed.event_id, claimed.attempts, claimed.attempts - claimed.attempts_before,
        claimed.created_at, claimed.traceparent, claimed.type, webhooks.host,
        coalesce(CAST(webhooks.user_id AS text), webhooks.client_id), webhooks.is_answering, webhooks.url,
        webhooks.secret, webhooks.previous_secret, webhooks.previous_until,
        notifications.user_id, notifications.order_id, notifications.created_at, notifications.data
""")
"""Steps from webhook to webhook by the index, so that a long queue of one costs the others nothing.

First attempts go before retries, and owners with few requests before those with many. Of a disabled webhook it claims
tests alone.
"""
_PATIENCE: Final = timedelta(seconds=15)
"""A retry that is so late counts as a first attempt, so that a flood of these can't stop it."""


async def claim_deliveries(
    session: AsyncSession,
    *,
    limit: int,
    shares: Shares,
    sending: Collection[ClaimedWebhookDelivery],
    lease: timedelta,
) -> list[ClaimedWebhookDelivery]:
    """Claims due deliveries within the `shares`, of which those in `sending` are part."""
    values = _values(limit=limit, shares=shares, sending=sending, lease=lease)
    return [ClaimedWebhookDelivery(*row) for row in await session.execute(_CLAIM, values)]


def _values(
    *, limit: int, shares: Shares, sending: Collection[ClaimedWebhookDelivery], lease: timedelta
) -> dict[str, Any]:
    hosts = Counter(claim.host for claim in sending)
    owners = Counter((claim.owner, claim.is_answering) for claim in sending)
    return {
        "busy_hosts": list(hosts),
        "busy_host_counts": list(hosts.values()),
        "busy_owners": [owner for owner, _ in owners],
        "busy_answering": [is_answering for _, is_answering in owners],
        "busy_owner_counts": list(owners.values()),
        "per_host": shares.per_host,
        "per_owner": shares.per_owner,
        "room": shares.unproven - sum(not claim.is_answering for claim in sending),
        "most": limit,
        "lease": lease,
        "patience": _PATIENCE,
        "test": TEST_TYPE,
    }


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


async def backlog(session: AsyncSession) -> tuple[int, float]:
    """Returns the number of pending deliveries, and how many seconds the most overdue one is late."""
    pending = WebhookDelivery.state == "pending"
    late = func.greatest(func.extract("epoch", func.now() - func.min(WebhookDelivery.due_at)), 0)
    count, seconds = (await session.execute(select(func.count(), late).where(pending))).one()
    return count, float(seconds or 0)
