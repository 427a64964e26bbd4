"""Events that are due at webhooks, on their way over HTTP."""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Final

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import utc_now
from common.messaging.cloudevents import rfc3339
from notifier.delivery.errors import NothingToSend
from notifier.delivery.outcomes import Outcome
from notifier.delivery.queue import Queue
from notifier.models import TEST_TYPE
from notifier.webhooks import queries
from notifier.webhooks.channel import WebhookChannel, as_body
from notifier.webhooks.handlers import WEBHOOKS_CHANNEL
from notifier.webhooks.queries import ClaimedWebhookDelivery
from notifier.webhooks.secrets import SecretBox, signed_headers

DELAYS: Final = (5.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0, 64800.0, 64800.0)
"""Seconds after each try, of which some quarter is chance: three tries within 150 s though each takes 10 s, then later
each time up to a day, nine tries in about two days.
"""
PER_HOST: Final = 4
"""Posted to one host side by side: a slow one holds up itself."""


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
        came = [(outcome.claim, outcome.state, outcome.cause, outcome.retry_in) for outcome in outcomes]
        await queries.record_outcomes(session, came)

    async def send(self, claim: ClaimedWebhookDelivery) -> None:
        event_type, now = claim.type, utc_now()
        body = as_body(
            event_type=event_type, timestamp=rfc3339(claim.occurred_at or claim.created_at), data=_data(claim)
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
    """The event's data as it was published."""
    if claim.type == TEST_TYPE:
        return {"webhook_id": str(claim.webhook_id)}
    if claim.data is None:
        raise NothingToSend("its notification is gone")
    return {"order_id": str(claim.order_id), "customer_id": str(claim.user_id), **claim.data}
