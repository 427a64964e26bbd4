"""Routes of webhooks."""

from datetime import timedelta
from functools import partial
from typing import Annotated, Final
from uuid import UUID

import httpx
from fastapi import Query, Request, Response

from common.db.database import utc_now
from common.errors import Unprocessable
from common.web import ApiRouter, responses
from common.web.pagination import Page, PageDep
from common.web.session import SessionDep
from notifier.models import State
from notifier.webhooks import handlers, queries
from notifier.webhooks.deps import ReadingOwnerDep, WritingOwnerDep
from notifier.webhooks.destinations import BadDestination, Destinations
from notifier.webhooks.models import Webhook
from notifier.webhooks.schemas import (
    AttemptOut,
    NewWebhook,
    Recovery,
    RecoveryOut,
    WebhookChange,
    WebhookDeliveryOut,
    WebhookDeliveryWithAttempts,
    WebhookOut,
    WebhookWithSecret,
)
from notifier.webhooks.secrets import SecretBox, encode_secret

router: Final = ApiRouter(prefix="/webhooks", tags=["webhooks"])
_MAX_ATTEMPTS: Final = 100
"""Attempts that one response lists."""


class BadWebhookUrl(Unprocessable):
    code, title = "invalid_webhook_url", "Webhook URL not allowed"


@router.post("", status_code=201, responses=responses(409))
async def create_webhook(
    body: NewWebhook,
    owner: WritingOwnerDep,
    request: Request,
    session: SessionDep,
    response: Response,
) -> WebhookWithSecret:
    """Registers a URL to which events of your own orders are posted; a client's receives those of all orders.

    Only this response contains the secret.
    """
    box: SecretBox = request.state.secret_box
    url = await _checked(request, body.url)  # before the session begins a transaction
    webhook, secret = await handlers.create(session, box, owner, url=url, event_types=body.event_types)
    return _with_secret(webhook, secret, response)


@router.get("")
async def list_webhooks(page: PageDep, owner: ReadingOwnerDep, session: SessionDep) -> Page[WebhookOut]:
    """Lists your webhooks, newest first."""
    fetch = partial(queries.webhooks, session, owner)
    return await page.load(fetch, by={"id": UUID}, item=WebhookOut.model_validate)


@router.patch("/{webhook_id}", responses=responses(404, 409))
async def change_webhook(
    webhook_id: UUID, body: WebhookChange, owner: WritingOwnerDep, request: Request, session: SessionDep
) -> WebhookOut:
    """Changes a webhook, or disables or enables it. Enabling does not send what happened meanwhile: see `recover`."""
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    if "url" in changes:
        changes["url"] = await _checked(request, changes["url"])
    webhook = await handlers.change(session, webhook_id, owner=owner, **changes)
    return WebhookOut.model_validate(webhook)


@router.delete("/{webhook_id}", status_code=204, responses=responses(404))
async def delete_webhook(webhook_id: UUID, owner: WritingOwnerDep, session: SessionDep) -> None:
    """Deletes a webhook and its deliveries. A request that is being sent may still arrive."""
    await queries.delete_webhook(session, webhook_id, owner=owner)


@router.post("/{webhook_id}/secret", status_code=201, responses=responses(404))
async def change_webhook_secret(
    webhook_id: UUID, owner: WritingOwnerDep, request: Request, session: SessionDep, response: Response
) -> WebhookWithSecret:
    """Creates a new secret. For 24 hours deliveries are signed with the old one too."""
    box: SecretBox = request.state.secret_box
    webhook, secret = await handlers.replace_secret(session, box, webhook_id, owner=owner)
    return _with_secret(webhook, secret, response)


@router.post("/{webhook_id}/test", status_code=202, responses=responses(404, 429))
async def test_webhook(webhook_id: UUID, owner: WritingOwnerDep, session: SessionDep) -> WebhookDeliveryOut:
    """Sends an event of the type `notifier.webhook.test.v1`, in the same way as any other, but only once."""
    return WebhookDeliveryOut.model_validate(await handlers.test(session, webhook_id, owner=owner))


@router.post("/{webhook_id}/recover", status_code=202, responses=responses(404, 409))
async def recover_webhook(
    webhook_id: UUID, body: Recovery, owner: WritingOwnerDep, request: Request, session: SessionDep
) -> RecoveryOut:
    """Sends again all events since a time that failed or were never sent, also those while it was disabled."""
    count = await handlers.recover(session, webhook_id, owner=owner, since=body.since, lease=_lease(request))
    return RecoveryOut(deliveries=count)


@router.get("/{webhook_id}/deliveries", responses=responses(404))
async def list_webhook_deliveries(
    webhook_id: UUID,
    page: PageDep,
    owner: ReadingOwnerDep,
    session: SessionDep,
    state: Annotated[State | None, Query(description="Only deliveries in this state.")] = None,
) -> Page[WebhookDeliveryOut]:
    """Lists sent and pending deliveries of the last 30 days, newest event first."""
    await queries.webhook(session, webhook_id, owner=owner)
    fetch = partial(queries.deliveries, session, webhook_id, state=state)
    return await page.load(fetch, by={"event_id": UUID}, item=WebhookDeliveryOut.model_validate)


@router.get("/{webhook_id}/deliveries/{event_id}", responses=responses(404))
async def get_webhook_delivery(
    webhook_id: UUID, event_id: UUID, owner: ReadingOwnerDep, session: SessionDep
) -> WebhookDeliveryWithAttempts:
    """Returns a delivery with its attempts, and the beginning of the last response."""
    await queries.webhook(session, webhook_id, owner=owner)
    delivery = await queries.delivery(session, webhook_id, event_id)
    attempts = await queries.attempts(
        session, webhook_id, event_id, since=utc_now() - handlers.HISTORY, limit=_MAX_ATTEMPTS
    )
    described = WebhookDeliveryOut.model_validate(delivery).model_dump()
    listed = [AttemptOut.model_validate(attempt) for attempt in attempts]
    return WebhookDeliveryWithAttempts(**described | {"attempts": listed}, answer=delivery.answer)


@router.post("/{webhook_id}/deliveries/{event_id}/resend", status_code=202, responses=responses(404, 409))
async def resend_webhook_delivery(
    webhook_id: UUID, event_id: UUID, owner: WritingOwnerDep, request: Request, session: SessionDep
) -> WebhookDeliveryOut:
    """Sends an event again, with the same id, whether or not it was received."""
    delivery = await handlers.resend(session, webhook_id, event_id, owner=owner, lease=_lease(request))
    return WebhookDeliveryOut.model_validate(delivery)


async def _checked(request: Request, text: str) -> httpx.URL:
    destinations: Destinations = request.state.destinations
    try:
        return await destinations.validate(text)
    except BadDestination as error:
        fault = {"loc": ["body", "url"], "msg": str(error), "code": BadWebhookUrl.code}
        raise BadWebhookUrl(f"The URL is refused: {error}.", errors=[fault]) from None


def _lease(request: Request) -> timedelta:
    lease: timedelta = request.state.delivery_lease
    return lease


def _with_secret(webhook: Webhook, secret: bytes, response: Response) -> WebhookWithSecret:
    response.headers["Cache-Control"] = "no-store"
    return WebhookWithSecret(**WebhookOut.model_validate(webhook).model_dump(), secret=encode_secret(secret))
