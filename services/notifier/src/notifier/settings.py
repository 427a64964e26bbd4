"""Settings of notifier, in addition to those of every service."""

import base64
import binascii
import re
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import parseaddr
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from common.settings import ClientSettings

LinkPurpose = Literal["verify_email", "reset_password", "confirm_email", "revert_email"]


class Settings(ClientSettings):
    service: ClassVar[str] = "notifier"

    users_url: str
    """Internal base URL of users."""
    smtp_host: str
    """Host name of the mail server."""
    smtp_port: int = Field(ge=1, le=65535)
    """Port of the mail server."""
    smtp_tls: Literal["off", "starttls", "implicit"] = "off"
    """Encryption to the mail server. `starttls` and `implicit` (RFC 8314 §3) require a certificate that verifies."""
    smtp_username: str | None = None
    """User name at the mail server, without which notifier does not authenticate. It requires `WAYBILL_SMTP_TLS`."""
    smtp_password: SecretStr | None = None
    """Password of `WAYBILL_SMTP_USERNAME`."""
    smtp_connections: int = Field(default=10, ge=1, le=100)
    """Mails that one deliverer sends concurrently. With few, connections idle while outcomes are recorded: in a
    measurement 16 sent three times as many mails as 4."""
    mail_from: str = "Waybill <no-reply@waybill.invalid>"
    """Sender of all mails. Its domain is also in `Message-ID` and `EHLO`."""
    unverified_mails: int = Field(default=10, ge=0, le=1000)
    """Mails about orders that an address may receive a day while nobody has verified it, and as many of each kind about
    security. The others are notifications alone, and are sent once the address is verified."""
    verify_email_page: str | None = None
    """URL of the page that verifies an e-mail address; mails append `?token=…`. By default the plain page of users."""
    reset_password_page: str | None = None
    """URL of the page that sets a new password; mails append `?token=…`. By default the plain page of users."""
    confirm_email_page: str | None = None
    """URL of the page that confirms a new e-mail address; mails append `?token=…`. By default the plain page of
    users."""
    revert_email_page: str | None = None
    """URL of the page that restores the previous e-mail address; mails append `?token=…`. By default the plain page of
    users."""
    delivery_lease: float = Field(default=12.0, ge=0.5, le=300)
    """Seconds until another deliverer may send what a deliverer that died was sending. Leases are renewed every third
    of it, so the default survives pauses of several seconds."""
    webhook_key: SecretStr
    """Key that encrypts webhook secrets at rest: 32 bytes in base64. Keys for the unsubscribe links of mails and for
    digests of unverified addresses are derived from it."""
    webhook_connections: int = Field(default=32, ge=1, le=200)
    """Webhook requests that one deliverer sends concurrently, at most four of them to one host. An eighth is one
    owner's share, and a quarter is reserved for webhooks that answered last."""
    webhook_allow: Annotated[frozenset[tuple[str, int]], NoDecode] = frozenset()
    """Destinations that webhooks may reach over http and at addresses that are not public: `host:port,…`, with IPv6
    addresses in brackets. Empty by default, since such a destination may be inside our own network."""

    @field_validator("mail_from")
    @classmethod
    def _check_address(cls, value: str) -> str:
        name, address = parseaddr(value)
        try:
            parsed = Address(display_name=name, addr_spec=address)
        except (ValueError, IndexError, MessageError):
            parsed = Address()
        if not (parsed.username and parsed.domain):
            raise ValueError("must be an address such as Waybill <no-reply@example.com>")
        return value

    @field_validator("webhook_allow", mode="before")
    @classmethod
    def _parse_hosts_and_ports(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        entries = [entry.strip() for entry in value.split(",") if entry.strip()]
        found = [re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/\[\]]+)):(\d{1,5})", entry) for entry in entries]
        if not all(found):
            raise ValueError("must be a comma-separated list of host:port")
        return {((match[1] or match[2]).lower(), int(match[3])) for match in found if match}

    @field_validator("webhook_key")
    @classmethod
    def _check_key(cls, value: SecretStr) -> SecretStr:
        if len(_decoded(value)) != 32:
            raise ValueError("must be 32 bytes in base64")
        return value

    @property
    def webhook_key_bytes(self) -> bytes:
        return _decoded(self.webhook_key)

    @model_validator(mode="after")
    def _require_tls_for_password(self) -> Self:
        if self.smtp_username is not None and self.smtp_tls == "off":
            raise ValueError("smtp_username requires smtp_tls: a password must not be sent unencrypted")
        return self

    @property
    def link_pages(self) -> dict[LinkPurpose, str]:
        return {
            "verify_email": self.verify_email_page or f"{self.public_url}/email-verifications/page",
            "reset_password": self.reset_password_page or f"{self.public_url}/password-resets/page",
            "confirm_email": self.confirm_email_page or f"{self.public_url}/email-changes/page",
            "revert_email": self.revert_email_page or f"{self.public_url}/email-changes/revert-page",
        }

    @property
    def sender(self) -> Address:
        name, address = parseaddr(self.mail_from)
        return Address(display_name=name, addr_spec=address)


def _decoded(secret: SecretStr) -> bytes:
    try:
        return base64.b64decode(secret.get_secret_value().strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
