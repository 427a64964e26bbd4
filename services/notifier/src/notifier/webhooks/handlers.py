"""Use cases of webhooks. They take a session and never commit: routes and consumers do."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import httpx
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import first_id_at, new_id, notify_after_commit, utc_now
from common.errors import Conflict, Forbidden, TooManyRequests
from notifier import queries
from notifier.models import TEST_TYPE, EventType, Webhook, WebhookDelivery
from notifier.webhooks import queries as webhook_queries
from notifier.webhooks.destinations import port_of
from notifier.webhooks.queries import PlannedEvent
from notifier.webhooks.secrets import SecretBox, new_secret

WEBHOOKS_CHANNEL: Final = "webhook_deliveries"
"""PostgreSQL channel that is notified when a webhook delivery becomes due."""
MAX_WEBHOOKS: Final = 10
"""Per person."""
SECRETS_OVERLAP: Final = timedelta(hours=24)
"""How long deliveries are also signed with a replaced secret."""
_MAX_TESTS: Final = 10
"""Per webhook and minute: each test is a request to an address that need not belong to the caller."""


class TooManyWebhooks(Conflict):
    code, title = "too_many_webhooks", "Too many webhooks"


async def create(
    session: AsyncSession, box: SecretBox, user_id: UUID, *, url: httpx.URL, event_types: Sequence[EventType]
) -> tuple[Webhook, bytes]:
    """Returns the webhook and its secret, which is not shown again. Raises `Forbidden`, `TooManyWebhooks`."""
    contact = await queries.lock_contact(session, user_id)
    if contact.erased:
        raise Forbidden("This account was erased.")
    if await webhook_queries.count_webhooks(session, user_id) >= MAX_WEBHOOKS:
        raise TooManyWebhooks(f"A person may have {MAX_WEBHOOKS} webhooks.")
    secret, webhook_id = new_secret(), new_id()
    webhook = Webhook(
        id=webhook_id,
        user_id=user_id,
        url=str(url),
        host=f"{url.host}:{port_of(url)}",
        event_types=list(event_types),
        secret=box.seal(secret, webhook_id),
        created_at=utc_now(),
    )
    session.add(webhook)
    return webhook, secret


async def replace_secret(
    session: AsyncSession, box: SecretBox, webhook_id: UUID, *, user_id: UUID
) -> tuple[Webhook, bytes]:
    """Returns the webhook and its new secret. The old one stays in use for `SECRETS_OVERLAP`. Raises `NotFound`."""
    webhook = await webhook_queries.webhook(session, webhook_id, user_id=user_id, lock=True)
    secret = new_secret()
    webhook.replace_secret(box.seal(secret, webhook_id), previous_until=utc_now() + SECRETS_OVERLAP)
    return webhook, secret


async def test(session: AsyncSession, webhook_id: UUID, *, user_id: UUID) -> WebhookDelivery:
    """Plans the delivery of a test event, in the same way as a real one. Raises `NotFound`, `TooManyRequests`."""
    webhook = await webhook_queries.webhook(session, webhook_id, user_id=user_id, lock=True)
    now = utc_now()
    recent = await webhook_queries.count_tests(session, webhook_id, since=first_id_at(now - timedelta(minutes=1)))
    if recent >= _MAX_TESTS:
        raise TooManyRequests(f"A webhook may be tested {_MAX_TESTS} times a minute.", headers={"Retry-After": "60"})
    delivery = WebhookDelivery(
        webhook_id=webhook.id, event_id=new_id(), type=TEST_TYPE, host=webhook.host, created_at=now
    )
    session.add(delivery)
    await session.flush()
    await session.refresh(delivery)
    notify_after_commit(session, WEBHOOKS_CHANNEL)
    return delivery


async def plan(session: AsyncSession, events: Sequence[PlannedEvent]) -> None:
    """Plans the deliveries of new events in one statement.

    Each event must have a notification: `data` of the request is read from there, when it is sent.
    """
    if events and await webhook_queries.plan_deliveries(session, events):
        notify_after_commit(session, WEBHOOKS_CHANNEL)
