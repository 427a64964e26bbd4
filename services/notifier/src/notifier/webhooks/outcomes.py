"""Records what came of webhook deliveries, and which webhooks fail."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from notifier.models import State
from notifier.webhooks.claims import ClaimedWebhookDelivery

FAILING_FOR: Final = timedelta(days=5)
"""After failures alone for so long a webhook is disabled."""
_FORGOTTEN_AFTER: Final = timedelta(days=2)
"""Without an attempt for so long, longer than any retry delay, an earlier failure no longer counts."""


@dataclass(frozen=True, slots=True)
class WebhookOutcome:
    claimed: ClaimedWebhookDelivery
    state: State
    cause: str | None
    retry_in: float
    """Seconds until the next attempt, if the state is `pending`."""
    began_at: datetime | None
    """When the request began. None if none was sent."""
    duration: float
    """Seconds."""
    status_code: int | None
    answer: str | None
    is_receivers: bool
    """False if the receiver is not at fault."""


# Before the deliveries, as everything that locks both does.
_LOCK: Final = text("SELECT FROM webhooks WHERE id = ANY (CAST(:webhook_ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE")
_RECORD: Final = text("""
    WITH outcome AS (
        SELECT * FROM unnest(
            CAST(:webhook_ids AS uuid[]), CAST(:event_ids AS uuid[]), CAST(:numbers AS int[]), CAST(:states AS text[]),
            CAST(:causes AS text[]), CAST(:retries_in AS float8[]), CAST(:begun_at AS timestamptz[]),
            CAST(:durations AS int[]), CAST(:status_codes AS int[]), CAST(:answers AS text[])
        ) AS outcome (webhook_id, event_id, number, state, cause, retry_in, at, duration_ms, status_code, answer)
    ), settled AS (
        UPDATE webhook_deliveries AS delivery
        SET state = outcome.state, cause = outcome.cause, due_at = now() + make_interval(secs => outcome.retry_in),
            settled_at = CASE WHEN outcome.state <> 'pending' THEN now() END,
            answer = CASE WHEN outcome.at IS NULL THEN delivery.answer ELSE outcome.answer END
        FROM outcome
        WHERE delivery.webhook_id = outcome.webhook_id AND delivery.event_id = outcome.event_id
        AND (
            delivery.state = 'pending' AND (outcome.state <> 'pending' OR delivery.attempts = outcome.number)
            OR delivery.state IN ('waiting', 'cancelled') AND outcome.state = 'sent'
        )
        RETURNING delivery.webhook_id, delivery.event_id, delivery.order_id, delivery.state
    ), logged AS (
        INSERT INTO webhook_attempts (webhook_id, event_id, number, at, status_code, cause, duration_ms)
        SELECT webhook_id, event_id, number, at, status_code, outcome.cause, duration_ms
        FROM outcome JOIN webhook_deliveries USING (webhook_id, event_id)
        WHERE at IS NOT NULL
        ON CONFLICT DO NOTHING
    ), next AS (
        SELECT DISTINCT ON (waiting.webhook_id, waiting.order_id) waiting.webhook_id, waiting.event_id
        FROM settled JOIN webhook_deliveries AS waiting USING (webhook_id, order_id)
        WHERE settled.state <> 'pending' AND waiting.state = 'waiting'
        AND waiting.event_id NOT IN (SELECT event_id FROM settled AS own WHERE own.webhook_id = waiting.webhook_id)
        AND NOT EXISTS (
            SELECT FROM webhook_deliveries AS pending
            WHERE pending.webhook_id = waiting.webhook_id AND pending.order_id = waiting.order_id
            AND pending.state = 'pending' AND NOT EXISTS (
                SELECT FROM settled AS own WHERE own.webhook_id = pending.webhook_id
                AND own.event_id = pending.event_id AND own.state <> 'pending'
            )
        )
        ORDER BY waiting.webhook_id, waiting.order_id, waiting.order_version, waiting.event_id
    ), released AS (
        UPDATE webhook_deliveries AS delivery SET state = 'pending', due_at = now()
        FROM next WHERE delivery.webhook_id = next.webhook_id AND delivery.event_id = next.event_id
        AND delivery.state = 'waiting'
    ), judged AS (
        UPDATE webhooks
        SET is_answering = verdict.answered,
            failing_since = CASE
                WHEN verdict.answered THEN NULL
                WHEN last_failed_at > now() - CAST(:forgotten_after AS interval) THEN coalesce(failing_since, now())
                ELSE now() END,
            last_failed_at = CASE WHEN verdict.answered THEN last_failed_at ELSE now() END
        FROM unnest(CAST(:judged_ids AS uuid[]), CAST(:answered AS bool[])) AS verdict (webhook_id, answered)
        WHERE webhooks.id = verdict.webhook_id AND NOT (verdict.answered AND is_answering AND failing_since IS NULL)
        RETURNING id, enabled, failing_since
    )
    SELECT id FROM judged WHERE enabled AND failing_since <= now() - CAST(:failing_for AS interval)
""")
"""Settles even if the claim was lost in the meantime: the attempt has ended. Postpones only with a valid claim.

What an order's settled delivery held up becomes pending.
"""


async def record_outcomes(session: AsyncSession, outcomes: Sequence[WebhookOutcome]) -> Sequence[UUID]:
    """Settles or postpones deliveries and logs the attempts. Returns the webhooks to disable, which are locked."""
    await session.execute(_LOCK, {"webhook_ids": list({outcome.claimed.webhook_id for outcome in outcomes})})
    answered = _verdicts(outcomes)
    values = {
        "webhook_ids": [outcome.claimed.webhook_id for outcome in outcomes],
        "event_ids": [outcome.claimed.event_id for outcome in outcomes],
        "numbers": [outcome.claimed.number for outcome in outcomes],
        "states": [outcome.state for outcome in outcomes],
        "causes": [outcome.cause for outcome in outcomes],
        "retries_in": [outcome.retry_in for outcome in outcomes],
        "begun_at": [outcome.began_at for outcome in outcomes],
        "durations": [round(outcome.duration * 1000) for outcome in outcomes],
        "status_codes": [outcome.status_code for outcome in outcomes],
        "answers": [outcome.answer for outcome in outcomes],
        "judged_ids": list(answered),
        "answered": list(answered.values()),
        "forgotten_after": _FORGOTTEN_AFTER,
        "failing_for": FAILING_FOR,
    }
    return (await session.scalars(_RECORD, values)).all()


def _verdicts(outcomes: Sequence[WebhookOutcome]) -> dict[UUID, bool]:
    """Whether each webhook took any of the requests."""
    answered: dict[UUID, bool] = {}
    for outcome in outcomes:
        if outcome.is_receivers:
            webhook_id = outcome.claimed.webhook_id
            answered[webhook_id] = answered.get(webhook_id, False) or outcome.state == "sent"
    return answered
