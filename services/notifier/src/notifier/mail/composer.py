"""Composes a mail just before it is sent, so that neither its text nor a secret link is stored anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.headerregistry import Address
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from common.errors import Unavailable
from common.security.service_client import ServiceClient
from notifier.delivery.errors import NothingToSend
from notifier.mail.message import Mail, build_mail
from notifier.mail.names import display_name
from notifier.mail.rendering import render
from notifier.mail.unsubscribe_links import UnsubscribeLinks
from notifier.models import preference_of
from notifier.queries import ClaimedDelivery
from notifier.settings import LinkPurpose


class IssuedLink(BaseModel):
    """The response of users. `email` is the address that the link was issued for, which need not be our contact's."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    token: str
    email: str


@dataclass(frozen=True, slots=True)
class Composer:
    sender: Address
    pages: Mapping[LinkPurpose, str]
    """The URLs of one-time links, without `?token=…`."""
    users: ServiceClient
    unsubscribe_links: UnsubscribeLinks

    async def compose(self, delivery: ClaimedDelivery) -> Mail:
        """Raises `NothingToSend`, `Refused`, or `Unavailable` when users can't issue a link."""
        if not delivery.is_wanted:
            raise NothingToSend("the person turned these mails off")
        name, email, link_url, unsubscribe_url = delivery.name, delivery.email, None, None
        match delivery.kind:
            case "verify_email" | "reset_password" | "confirm_email" | "revert_email" as purpose:
                link = await self._issue_link(UUID(delivery.data["link_id"]))
                # Anyone can request a link for a stranger's address, and must not send them text of their own.
                name, email = "", link.email
                link_url = f"{self.pages[purpose]}?token={quote(link.token, safe='')}"
            case "email_changed":
                email = delivery.data["email"]
            case _:
                pass
        if (preference := preference_of(delivery.kind)) is not None:
            unsubscribe_url = self.unsubscribe_links.url(delivery.user_id, preference)
        data = delivery.data | {"order_id": delivery.order_id, "occurred_at": delivery.occurred_at}
        return build_mail(
            render(delivery.kind, name=name, data=data, link_url=link_url, unsubscribe_url=unsubscribe_url),
            sender=self.sender,
            name=display_name(name),
            email=email,
            message_id=delivery.notification_id,
            date=delivery.created_at,
            unsubscribe_url=unsubscribe_url,
        )

    async def _issue_link(self, link_id: UUID) -> IssuedLink:
        response = await self.users.post(f"/internal/secret-links/{link_id}")
        if response.status_code == 404:
            raise NothingToSend("the link was used, replaced or has expired")
        if response.status_code != 200:
            raise Unavailable(f"users answered {response.status_code}")
        return IssuedLink.model_validate_json(response.content)
