"""HTTP ↔ webhooks."""

from functools import partial
from typing import Final
from uuid import UUID

from fastapi import Request, Response

from common.errors import Unprocessable
from common.web import ApiRouter, responses
from common.web.pagination import Page, PageDep
from notifier.deps import ReaderDep, SessionDep, WriterDep
from notifier.models import Webhook
from notifier.schemas import NewWebhook, WebhookDeliveryOut, WebhookOut, WebhookWithSecret
from notifier.webhooks import handlers, queries
from notifier.webhooks.destinations import BadDestination, Destinations
from notifier.webhooks.secrets import SecretBox, as_text

router: Final = ApiRouter(prefix="/webhooks", tags=["webhooks"])


class BadWebhookUrl(Unprocessable):
    code, title = "invalid_webhook_url", "Webhooks can't be sent there"


@router.post("", status_code=201, responses=responses(409))
async def create_webhook(
    body: NewWebhook,
    principal: WriterDep,
    request: Request,
    session: SessionDep,
    response: Response,
) -> WebhookWithSecret:
    """Has events of one's own orders posted to a URL. The secret is in this answer and nowhere else."""
    destinations: Destinations = request.state.destinations
    box: SecretBox = request.state.secret_box
    try:
        url = await destinations.admit(body.url)  # before the session is used: its transaction has not begun
    except BadDestination as error:
        at_fault = {"loc": ["body", "url"], "msg": str(error), "code": BadWebhookUrl.code}
        raise BadWebhookUrl(f"The URL is refused: {error}.", errors=[at_fault]) from None
    webhook, secret = await handlers.create(session, box, principal.user_id, url=url, event_types=body.event_types)
    return _with_secret(webhook, secret, response)


@router.get("")
async def list_webhooks(page: PageDep, principal: ReaderDep, session: SessionDep) -> Page[WebhookOut]:
    """One's own, newest first."""
    fetch = partial(queries.webhooks, session, principal.user_id)
    return await page.load(fetch, by={"id": UUID}, item=WebhookOut.model_validate)


@router.delete("/{webhook_id}", status_code=204, responses=responses(404))
async def delete_webhook(webhook_id: UUID, principal: WriterDep, session: SessionDep) -> None:
    """Ends all deliveries to it; one that is under way may still arrive."""
    await queries.delete_webhook(session, webhook_id, user_id=principal.user_id)


@router.post("/{webhook_id}/secret", status_code=201, responses=responses(404))
async def change_webhook_secret(
    webhook_id: UUID, principal: WriterDep, request: Request, session: SessionDep, response: Response
) -> WebhookWithSecret:
    """Makes a new secret. For 24 hours deliveries are signed with the old one as well."""
    box: SecretBox = request.state.secret_box
    webhook, secret = await handlers.replace_secret(session, box, webhook_id, user_id=principal.user_id)
    return _with_secret(webhook, secret, response)


@router.post("/{webhook_id}/test", status_code=202, responses=responses(404, 429))
async def test_webhook(webhook_id: UUID, principal: WriterDep, session: SessionDep) -> WebhookDeliveryOut:
    """Sends an event of the type `notifier.webhook.test.v1`, by the way that all go."""
    return WebhookDeliveryOut.model_validate(await handlers.test(session, webhook_id, user_id=principal.user_id))


@router.get("/{webhook_id}/deliveries", responses=responses(404))
async def list_webhook_deliveries(
    webhook_id: UUID, page: PageDep, principal: ReaderDep, session: SessionDep
) -> Page[WebhookDeliveryOut]:
    """What was sent or is to be, newest event first; 30 days back."""
    await queries.webhook(session, webhook_id, user_id=principal.user_id)
    fetch = partial(queries.webhook_deliveries, session, webhook_id)
    return await page.load(fetch, by={"event_id": UUID}, item=WebhookDeliveryOut.model_validate)


def _with_secret(webhook: Webhook, secret: bytes, response: Response) -> WebhookWithSecret:
    response.headers["Cache-Control"] = "no-store"
    return WebhookWithSecret(**WebhookOut.model_validate(webhook).model_dump(), secret=as_text(secret))
