"""Writes the mail of a claimed delivery, when it is about to be sent: neither texts nor secrets are at rest before."""

from collections.abc import Mapping
from email.headerregistry import Address
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from common.errors import Unavailable
from common.security.service_client import ServiceClient
from notifier.delivery.errors import NothingToSend
from notifier.mail import texts
from notifier.mail.message import Mail, mail
from notifier.mail.texts import Text
from notifier.queries import ClaimedDelivery
from notifier.settings import LinkPurpose


class IssuedLink(BaseModel):
    """What users answers; the address is the one it made the link for, which may be newer than ours."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    token: str
    email: str


class Composer:
    def __init__(self, *, sender: Address, pages: Mapping[LinkPurpose, str], users: ServiceClient) -> None:
        """`pages` are the addresses that one-time links have before their `?token=`."""
        self._sender = sender
        self._pages = pages
        self._users = users

    async def compose(self, delivery: ClaimedDelivery) -> Mail:
        """Raises `NothingToSend`, `Refused`, or `Unavailable` while users can't make a link."""
        name, email = delivery.name, delivery.email
        text: Text
        match delivery.kind:
            case "welcome":
                text = texts.welcome(name)
            case "password_changed":
                text = texts.password_changed(name)
            case "email_changed":
                text, email = texts.email_changed(name), delivery.data["email"]
            case "verify_email" | "reset_password" as purpose:
                link = await self._issue_link(UUID(delivery.data["link_id"]))
                name, email = "", link.email
                text = texts.secret_link(purpose, f"{self._pages[purpose]}?token={quote(link.token, safe='')}")
            case "order_placed" | "order_confirmed" | "order_shipped" | "order_delivered" | "order_cancelled" as kind:
                if delivery.order_id is None:
                    raise NothingToSend("it names no order")
                text = texts.order_update(kind, name, delivery.order_id, delivery.data)
        return mail(
            sender=self._sender,
            name=texts.displayed(name),
            email=email,
            subject=text.subject,
            body=text.body,
            message_id=delivery.notification_id,
            date=delivery.created_at,
        )

    async def _issue_link(self, link_id: UUID) -> IssuedLink:
        answer = await self._users.post(f"/internal/secret-links/{link_id}")
        if answer.status_code == 404:
            raise NothingToSend("the link was used, replaced or has expired")
        if answer.status_code != 200:
            raise Unavailable(f"users answered {answer.status_code}")
        return IssuedLink.model_validate_json(answer.content)
