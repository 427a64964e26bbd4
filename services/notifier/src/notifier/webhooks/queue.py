"""The queue of webhook deliveries."""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Final

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import utc_now
from common.messaging.cloudevents import rfc3339
from notifier.delivery.errors import NothingToSend
from notifier.delivery.queue import Outcome, Queue
from notifier.models import TEST_TYPE
from notifier.webhooks import queries
from notifier.webhooks.channel import WebhookChannel, encode_body
from notifier.webhooks.handlers import WEBHOOKS_CHANNEL
from notifier.webhooks.queries import ClaimedWebhookDelivery, WebhookOutcome
from notifier.webhooks.secrets import SecretBox, signed_headers

DELAYS: Final = (5.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0, 64800.0, 64800.0)
"""Seconds after each attempt, varied by a quarter: three attempts within 150 s even if each takes 10 s, then growing
delays of up to a day, nine attempts in about two days.
"""
PER_HOST: Final = 4
"""Concurrent requests to one host: a slow host delays only its own deliveries."""


class WebhookQueue(Queue[ClaimedWebhookDelivery]):
    channel: ClassVar = "webhook"
    notify_channel: ClassVar = WEBHOOKS_CHANNEL

    def __init__(self, channel: WebhookChannel, box: SecretBox, *, slots: int) -> None:
        self.slots = slots
        self._channel = channel
        self._box = box

    async def claim(
        self, session: AsyncSession, *, limit: int, lease: timedelta, sending: Collection[ClaimedWebhookDelivery]
    ) -> Sequence[ClaimedWebhookDelivery]:
        busy = Counter(claim.host for claim in sending)
        return await queries.claim_deliveries(session, limit=limit, per_host=PER_HOST, busy=busy, lease=lease)

    async def renew(self, session: AsyncSession, held: Collection[ClaimedWebhookDelivery], *, lease: timedelta) -> None:
        await queries.renew_claims(session, [claim.key for claim in held], lease=lease)

    async def record(self, session: AsyncSession, outcomes: Collection[Outcome[ClaimedWebhookDelivery]]) -> None:
        await queries.record_outcomes(
            session, [WebhookOutcome(each.claim, each.state, each.cause, each.retry_in) for each in outcomes]
        )

    async def send(self, claim: ClaimedWebhookDelivery) -> None:
        now = utc_now()
        body = encode_body(
            event_type=claim.type, timestamp=rfc3339(claim.occurred_at or claim.created_at), data=_data(claim)
        )
        sealed = [claim.secret]
        if claim.previous_secret is not None and claim.previous_until is not None and now < claim.previous_until:
            sealed.append(claim.previous_secret)
        keys = [self._box.unseal(each, claim.webhook_id) for each in sealed]
        headers = signed_headers(claim.event_id, int(now.timestamp()), body, keys)
        await self._channel.send(claim.url, headers, body)

    def delay(self, attempts: int) -> float | None:
        return DELAYS[attempts - 1] if attempts <= len(DELAYS) else None

    async def backlog(self, session: AsyncSession) -> tuple[int, float]:
        return await queries.backlog(session)

    def kind(self, claim: ClaimedWebhookDelivery) -> str:
        return claim.type

    def ids(self, claim: ClaimedWebhookDelivery) -> dict[str, str | None]:
        return {
            "webhook_id": str(claim.webhook_id),
            "event_id": str(claim.event_id),
            "user_id": str(claim.user_id),
            "order_id": str(claim.order_id) if claim.order_id else None,
            "type": claim.type,
        }


def _data(claim: ClaimedWebhookDelivery) -> dict[str, Any]:
    """The event's data as it was published.

    It is stored once, in the event's notification, so an event type without notifications can't be posted to webhooks.
    """
    if claim.type == TEST_TYPE:
        return {"webhook_id": str(claim.webhook_id)}
    if claim.data is None:
        raise NothingToSend("the notification was deleted")
    return {"order_id": str(claim.order_id), "customer_id": str(claim.user_id), **claim.data}
