"""Routes of webhooks."""

from functools import partial
from typing import Final
from uuid import UUID

from fastapi import Request, Response

from common.errors import Unprocessable
from common.web import ApiRouter, responses
from common.web.pagination import Page, PageDep
from common.web.session import SessionDep
from notifier.deps import ReaderDep, WriterDep
from notifier.models import Webhook
from notifier.schemas import NewWebhook, WebhookDeliveryOut, WebhookOut, WebhookWithSecret
from notifier.webhooks import handlers, queries
from notifier.webhooks.destinations import BadDestination, Destinations
from notifier.webhooks.secrets import SecretBox, encode_secret

router: Final = ApiRouter(prefix="/webhooks", tags=["webhooks"])


class BadWebhookUrl(Unprocessable):
    code, title = "invalid_webhook_url", "Webhook URL not allowed"


@router.post("", status_code=201, responses=responses(409))
async def create_webhook(
    body: NewWebhook,
    principal: WriterDep,
    request: Request,
    session: SessionDep,
    response: Response,
) -> WebhookWithSecret:
    """Registers a URL to which events of your own orders are posted. Only this response contains the secret."""
    destinations: Destinations = request.state.destinations
    box: SecretBox = request.state.secret_box
    try:
        url = await destinations.validate(body.url)  # before the session begins a transaction
    except BadDestination as error:
        fault = {"loc": ["body", "url"], "msg": str(error), "code": BadWebhookUrl.code}
        raise BadWebhookUrl(f"The URL is refused: {error}.", errors=[fault]) from None
    webhook, secret = await handlers.create(session, box, principal.user_id, url=url, event_types=body.event_types)
    return _with_secret(webhook, secret, response)


@router.get("")
async def list_webhooks(page: PageDep, principal: ReaderDep, session: SessionDep) -> Page[WebhookOut]:
    """Lists your webhooks, newest first."""
    fetch = partial(queries.webhooks, session, principal.user_id)
    return await page.load(fetch, by={"id": UUID}, item=WebhookOut.model_validate)


@router.delete("/{webhook_id}", status_code=204, responses=responses(404))
async def delete_webhook(webhook_id: UUID, principal: WriterDep, session: SessionDep) -> None:
    """Deletes a webhook and its deliveries. A request that is being sent may still arrive."""
    await queries.delete_webhook(session, webhook_id, user_id=principal.user_id)


@router.post("/{webhook_id}/secret", status_code=201, responses=responses(404))
async def change_webhook_secret(
    webhook_id: UUID, principal: WriterDep, request: Request, session: SessionDep, response: Response
) -> WebhookWithSecret:
    """Creates a new secret. For 24 hours deliveries are signed with the old one too."""
    box: SecretBox = request.state.secret_box
    webhook, secret = await handlers.replace_secret(session, box, webhook_id, user_id=principal.user_id)
    return _with_secret(webhook, secret, response)


@router.post("/{webhook_id}/test", status_code=202, responses=responses(404, 429))
async def test_webhook(webhook_id: UUID, principal: WriterDep, session: SessionDep) -> WebhookDeliveryOut:
    """Sends an event of the type `notifier.webhook.test.v1`, in the same way as any other."""
    return WebhookDeliveryOut.model_validate(await handlers.test(session, webhook_id, user_id=principal.user_id))


@router.get("/{webhook_id}/deliveries", responses=responses(404))
async def list_webhook_deliveries(
    webhook_id: UUID, page: PageDep, principal: ReaderDep, session: SessionDep
) -> Page[WebhookDeliveryOut]:
    """Lists sent and pending deliveries of the last 30 days, newest event first."""
    await queries.webhook(session, webhook_id, user_id=principal.user_id)
    fetch = partial(queries.webhook_deliveries, session, webhook_id)
    return await page.load(fetch, by={"event_id": UUID}, item=WebhookDeliveryOut.model_validate)


def _with_secret(webhook: Webhook, secret: bytes, response: Response) -> WebhookWithSecret:
    response.headers["Cache-Control"] = "no-store"
    return WebhookWithSecret(**WebhookOut.model_validate(webhook).model_dump(), secret=encode_secret(secret))
