"""Use cases of webhooks. They take a session and never commit: routes and consumers do."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Final
from uuid import UUID

import httpx
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import first_id_at, new_id, notify_after_commit, utc_now
from common.errors import Conflict, Forbidden, TooManyRequests, Unprocessable
from notifier import queries as contact_queries
from notifier.handlers import NewNotification, create_notifications
from notifier.models import Kind
from notifier.webhooks import planning, queries
from notifier.webhooks.destinations import port_of
from notifier.webhooks.models import TEST_TYPE, DisabledReason, EventType, Owner, Webhook, WebhookDelivery
from notifier.webhooks.planning import PlannedEvent
from notifier.webhooks.secrets import SecretBox, new_secret

WEBHOOKS_CHANNEL: Final = "webhook_deliveries"
"""PostgreSQL channel that is notified when a webhook delivery becomes due."""
MAX_WEBHOOKS: Final = 10
"""Per person or client."""
SECRETS_OVERLAP: Final = timedelta(hours=24)
"""How long deliveries are also signed with a replaced secret."""
HISTORY: Final = timedelta(days=30)
"""How long deliveries and attempts are kept, and how far back they can be sent again."""
_LONGEST_LEASE: Final = timedelta(minutes=5)
"""Of any deliverer's setting."""
_MAX_TESTS: Final = 10
"""Per webhook and minute: each test is a request to an address that need not belong to the caller."""


class TooManyWebhooks(Conflict):
    code, title = "too_many_webhooks", "Too many webhooks"


class WebhookIsDisabled(Conflict):
    code, title = "webhook_disabled", "The webhook is disabled"


class WebhookStillEnding(Conflict):
    code, title = "webhook_still_ending", "The webhook is still being disabled"


class HistoryGone(Unprocessable):
    code, title = "history_gone", "No longer kept"


async def create(
    session: AsyncSession, box: SecretBox, owner: Owner, *, url: httpx.URL, event_types: Sequence[EventType]
) -> tuple[Webhook, bytes]:
    """Returns the webhook and its secret, which is not shown again. A person is notified of it.

    Raises `Forbidden`, `TooManyWebhooks`.
    """
    await _lock_owner(session, owner)
    if await queries.count_webhooks(session, owner) >= MAX_WEBHOOKS:
        raise TooManyWebhooks(f"A person or client may have {MAX_WEBHOOKS} webhooks.")
    secret, webhook_id = new_secret(), new_id()
    webhook = Webhook(
        id=webhook_id,
        user_id=owner.user_id,
        client_id=owner.client_id,
        url=str(url),
        host=_host_of(url),
        event_types=list(event_types),
        secret=box.seal(secret, webhook_id),
        enabled=True,
        created_at=utc_now(),
    )
    session.add(webhook)
    await _notify(session, webhook, "webhook_added")
    return webhook, secret


async def _lock_owner(session: AsyncSession, owner: Owner) -> None:
    """Their webhooks are counted one request at a time. Raises `Forbidden` if the owner is gone."""
    if owner.user_id is not None:
        if (await contact_queries.lock_contact(session, owner.user_id)).erased:
            raise Forbidden("This account was erased.")
    elif owner.client_id is not None and (await queries.lock_client(session, owner.client_id)).ended:
        raise Forbidden("This client was deleted.")


async def change(
    session: AsyncSession,
    webhook_id: UUID,
    *,
    owner: Owner,
    url: httpx.URL | None = None,
    event_types: Sequence[EventType] | None = None,
    enabled: bool | None = None,
) -> Webhook:
    """Changes what is given. A person is notified of another host. Enabling sends nothing old.

    Raises `NotFound`, `WebhookStillEnding`.
    """
    webhook = await queries.webhook(session, webhook_id, owner=owner, lock=True)
    if url is not None and str(url) != webhook.url:
        is_other_host = _host_of(url) != webhook.host
        webhook.url, webhook.host = str(url), _host_of(url)
        webhook.forget_failures()
        if is_other_host:
            await _notify(session, webhook, "webhook_added")
    if event_types is not None:
        webhook.event_types = list(event_types)
    if enabled and not webhook.enabled:
        if not await planning.is_ended(session, webhook_id):
            raise WebhookStillEnding("Many of its deliveries are being cancelled. Try again in a minute.")
        webhook.enable()
    await session.flush()
    if enabled is False:
        await disable(session, [webhook_id], "by_owner")
    return webhook


async def disable(session: AsyncSession, webhook_ids: Collection[UUID], reason: DisabledReason) -> None:
    """Disables the webhooks. A person is notified of one that is failing.

    Cancels their first deliveries, but those of a failing one: it would hold up what is recorded with it.
    `notifier.webhooks.ending` cancels the rest.
    """
    for webhook in await queries.disable_webhooks(session, webhook_ids, reason):
        if reason == "failing":
            await _notify(session, webhook, "webhook_disabled", disabled_reason=reason)
    if reason != "failing":
        await planning.cancel_deliveries(session, webhook_ids, limit=planning.AT_ONCE)


async def disable_recovered(session: AsyncSession, user_id: UUID, *, recovered_at: datetime) -> int:
    """Disables the webhooks that the person had when they recovered the account: somebody else may have added them.

    Returns how many.
    """
    webhook_ids = await queries.lock_enabled(session, user_id, created_until=recovered_at)
    if webhook_ids:
        await disable(session, webhook_ids, "account_recovered")
    return len(webhook_ids)


async def end_client(session: AsyncSession, client_id: str) -> None:
    """Deletes the client's webhooks, and forbids new ones: its last token may be valid for a moment longer."""
    (await queries.lock_client(session, client_id)).ended = True
    await queries.delete_webhooks(session, Owner(client_id=client_id))


async def replace_secret(
    session: AsyncSession, box: SecretBox, webhook_id: UUID, *, owner: Owner
) -> tuple[Webhook, bytes]:
    """Returns the webhook and its new secret. The old one stays in use for `SECRETS_OVERLAP`. Raises `NotFound`."""
    webhook = await queries.webhook(session, webhook_id, owner=owner, lock=True)
    secret = new_secret()
    webhook.replace_secret(box.seal(secret, webhook_id), previous_until=utc_now() + SECRETS_OVERLAP)
    return webhook, secret


async def test(session: AsyncSession, webhook_id: UUID, *, owner: Owner) -> WebhookDelivery:
    """Plans the delivery of a test event, also to a disabled webhook. Raises `NotFound`, `TooManyRequests`."""
    webhook = await queries.webhook(session, webhook_id, owner=owner, lock=True)
    now = utc_now()
    recent = await queries.count_tests(session, webhook_id, since=first_id_at(now - timedelta(minutes=1)))
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


async def resend(
    session: AsyncSession, webhook_id: UUID, event_id: UUID, *, owner: Owner, lease: timedelta
) -> WebhookDelivery:
    """Sends the event again, with the same id, whatever came of it before. Raises `NotFound`, `WebhookIsDisabled`."""
    await _lock_enabled(session, webhook_id, owner)
    await queries.delivery(session, webhook_id, event_id)
    await planning.send_again(session, webhook_id, [event_id], lease=lease)
    notify_after_commit(session, WEBHOOKS_CHANNEL)
    return await queries.delivery(session, webhook_id, event_id)


async def resend_settled(session: AsyncSession, chosen: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
    """Sends settled deliveries of enabled webhooks again, each named by webhook and event. Returns which."""
    enabled = await queries.lock_webhooks(session, {webhook_id for webhook_id, _ in chosen})
    done = await queries.settled_deliveries(session, [each for each in chosen if each[0] in enabled])
    for webhook_id, of_webhook in groupby(sorted(done), key=itemgetter(0)):
        await planning.send_again(session, webhook_id, [each[1] for each in of_webhook], lease=_LONGEST_LEASE)
    notify_after_commit(session, WEBHOOKS_CHANNEL)
    return done


async def recover(session: AsyncSession, webhook_id: UUID, *, owner: Owner, since: datetime, lease: timedelta) -> int:
    """Sends again what failed or was not sent since then, in the order of each order's events. Returns how many.

    Raises `HistoryGone`, `NotFound`, `WebhookIsDisabled`.
    """
    if since < utc_now() - HISTORY:
        raise HistoryGone(f"Deliveries are kept for {HISTORY.days} days.")
    await _lock_enabled(session, webhook_id, owner)
    count = await planning.send_all_again(session, webhook_id, since=first_id_at(since), lease=lease)
    notify_after_commit(session, WEBHOOKS_CHANNEL)
    return count


async def _lock_enabled(session: AsyncSession, webhook_id: UUID, owner: Owner) -> None:
    webhook = await queries.webhook(session, webhook_id, owner=owner, lock=True)
    if not webhook.enabled:
        raise WebhookIsDisabled("Enable it first.")


async def plan(session: AsyncSession, events: Sequence[PlannedEvent]) -> None:
    """Plans the deliveries of new events in one statement.

    Each event must have a notification: `data` of the request is read from there, when it is sent.
    """
    if events and await planning.plan_deliveries(session, events):
        notify_after_commit(session, WEBHOOKS_CHANNEL)


async def _notify(session: AsyncSession, webhook: Webhook, kind: Kind, **data: str) -> None:
    """Names the host alone: the rest of the URL may be a secret, or text that somebody wants in our mails."""
    if webhook.user_id is not None:
        data |= {"webhook_id": str(webhook.id), "host": webhook.host}
        notification = NewNotification(new_id(), webhook.user_id, kind, utc_now(), data=data)
        await create_notifications(session, [notification])


def _host_of(url: httpx.URL) -> str:
    return f"{url.host}:{port_of(url)}"
