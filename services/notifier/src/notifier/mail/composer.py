"""Composes a mail just before it is sent, so that neither its text nor a secret link is stored anywhere."""

from collections.abc import Mapping
from email.headerregistry import Address
from typing import assert_never
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from common.errors import Unavailable
from common.security.service_client import ServiceClient
from notifier.delivery.errors import NothingToSend
from notifier.mail import texts
from notifier.mail.message import Mail, build_mail
from notifier.mail.texts import MailText
from notifier.queries import ClaimedDelivery
from notifier.settings import LinkPurpose


class IssuedLink(BaseModel):
    """The response of users. `email` is the address that the link was issued for; it may be newer than our contact."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    token: str
    email: str


class Composer:
    def __init__(self, *, sender: Address, pages: Mapping[LinkPurpose, str], users: ServiceClient) -> None:
        """`pages` are the URLs of one-time links, without `?token=…`."""
        self._sender = sender
        self._pages = pages
        self._users = users

    async def compose(self, delivery: ClaimedDelivery) -> Mail:
        """Raises `NothingToSend`, `Refused`, or `Unavailable` when users can't issue a link."""
        name, email = delivery.name, delivery.email
        text: MailText
        match delivery.kind:
            case "welcome":
                text = texts.welcome(name)
            case "password_changed":
                text = texts.password_changed(name)
            case (
                "new_sign_in"
                | "account_deactivated"
                | "account_reactivated"
                | "authenticator_changed"
                | "webhook_added"
                | "webhook_disabled"
                | "email_reverted"
            ) as kind:
                text = texts.security_notice(kind, name)
            case "email_changed":
                text, email = texts.email_changed(name), delivery.data["email"]
            case "verify_email" | "reset_password" | "confirm_email" | "revert_email" as purpose:
                link = await self._issue_link(UUID(delivery.data["link_id"]))
                name, email = "", link.email
                text = texts.secret_link(purpose, f"{self._pages[purpose]}?token={quote(link.token, safe='')}")
            case "order_placed" | "order_confirmed" | "order_shipped" | "order_delivered" | "order_cancelled" as kind:
                if delivery.order_id is None:
                    raise NothingToSend("the notification has no order")
                text = texts.order_update(kind, name, delivery.order_id, delivery.data)
            case unknown:
                assert_never(unknown)
        return build_mail(
            sender=self._sender,
            name=texts.display_name(name),
            email=email,
            subject=text.subject,
            body=text.body,
            message_id=delivery.notification_id,
            date=delivery.created_at,
        )

    async def _issue_link(self, link_id: UUID) -> IssuedLink:
        response = await self._users.post(f"/internal/secret-links/{link_id}")
        if response.status_code == 404:
            raise NothingToSend("the link was used, replaced or has expired")
        if response.status_code != 200:
            raise Unavailable(f"users answered {response.status_code}")
        return IssuedLink.model_validate_json(response.content)
