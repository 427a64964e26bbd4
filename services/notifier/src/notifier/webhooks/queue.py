"""The queue of webhook deliveries."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import utc_now
from common.messaging.cloudevents import rfc3339
from notifier.delivery.errors import Answer, NothingToSend
from notifier.delivery.queue import Outcome, Queue
from notifier.webhooks import claims, handlers, outcomes, planning
from notifier.webhooks.channel import WebhookChannel, encode_body
from notifier.webhooks.claims import ClaimedWebhookDelivery, Shares
from notifier.webhooks.handlers import WEBHOOKS_CHANNEL
from notifier.webhooks.models import TEST_TYPE
from notifier.webhooks.outcomes import WebhookOutcome
from notifier.webhooks.secrets import SecretBox, signed_headers

log = structlog.get_logger(__name__)

DELAYS: Final = (5.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0, 64800.0, 64800.0)
"""Seconds after each attempt, varied by a quarter: three attempts within 150 s even if each takes 10 s, then growing
delays of up to a day, nine attempts in about two days.
"""
_RELEASE_LIMIT: Final = 1000
"""Waiting deliveries that are checked per poll, at most."""


class WebhookQueue(Queue[ClaimedWebhookDelivery]):
    channel: ClassVar = "webhook"
    notify_channel: ClassVar = WEBHOOKS_CHANNEL

    def __init__(self, channel: WebhookChannel, box: SecretBox, *, slots: int) -> None:
        self.slots = slots
        self._shares = Shares.of(slots)
        self._channel = channel
        self._box = box

    async def claim(
        self, session: AsyncSession, *, limit: int, lease: timedelta, sending: Collection[ClaimedWebhookDelivery]
    ) -> Sequence[ClaimedWebhookDelivery]:
        return await claims.claim_deliveries(session, limit=limit, shares=self._shares, sending=sending, lease=lease)

    async def renew(self, session: AsyncSession, held: Collection[ClaimedWebhookDelivery], *, lease: timedelta) -> None:
        await claims.renew_claims(session, [claim.key for claim in held], lease=lease)

    async def record(self, session: AsyncSession, outcomes_: Collection[Outcome[ClaimedWebhookDelivery]]) -> None:
        failing = await outcomes.record_outcomes(session, [_recorded(outcome) for outcome in outcomes_])
        if failing:
            log.warning("webhooks disabled", reason="failing", webhook_ids=[str(each) for each in failing])
            await handlers.disable(session, failing, "failing")

    async def send(self, claim: ClaimedWebhookDelivery) -> Answer:
        now = utc_now()
        body = encode_body(
            event_type=claim.type, timestamp=rfc3339(claim.occurred_at or claim.created_at), data=_data(claim)
        )
        sealed = [claim.secret]
        if claim.previous_secret is not None and claim.previous_until is not None and now < claim.previous_until:
            sealed.append(claim.previous_secret)
        keys = [self._box.unseal(each, claim.webhook_id) for each in sealed]
        headers = signed_headers(claim.event_id, int(now.timestamp()), body, keys)
        return await self._channel.send(claim.url, headers, body)

    def delay(self, claim: ClaimedWebhookDelivery) -> float | None:
        if claim.type == TEST_TYPE:
            return None
        return DELAYS[claim.attempts - 1] if claim.attempts <= len(DELAYS) else None

    async def backlog(self, session: AsyncSession) -> tuple[int, float]:
        return await claims.backlog(session)

    async def release_waiting(self, session: AsyncSession) -> bool:
        return await planning.release_overlooked(session, limit=_RELEASE_LIMIT)

    def kind(self, claim: ClaimedWebhookDelivery) -> str:
        return claim.type

    def ids(self, claim: ClaimedWebhookDelivery) -> dict[str, str | None]:
        return {
            "webhook_id": str(claim.webhook_id),
            "event_id": str(claim.event_id),
            "owner": claim.owner,
            "order_id": str(claim.order_id) if claim.order_id else None,
            "type": claim.type,
        }


def _recorded(outcome: Outcome[ClaimedWebhookDelivery]) -> WebhookOutcome:
    answer = outcome.answer
    return WebhookOutcome(
        claimed=outcome.claim,
        state=outcome.state,
        cause=outcome.cause,
        retry_in=outcome.retry_in,
        began_at=outcome.began_at if outcome.state != "cancelled" else None,
        duration=outcome.duration,
        status_code=answer.status if answer is not None else None,
        answer=answer.text if answer is not None else None,
        is_receivers=outcome.is_receivers,
    )


def _data(claim: ClaimedWebhookDelivery) -> dict[str, Any]:
    """The event's data as it was published.

    It is stored once, in the event's notification, so an event type without notifications can't be posted to webhooks.
    """
    if claim.type == TEST_TYPE:
        return {"webhook_id": str(claim.webhook_id)}
    if claim.data is None:
        raise NothingToSend("the notification was deleted")
    return {"order_id": str(claim.order_id), "customer_id": str(claim.customer_id), **claim.data}
