"""Settings of notifier, beside those that every service has."""

import base64
import binascii
import re
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import parseaddr
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from common.settings import ServiceSettings

LinkPurpose = Literal["verify_email", "reset_password"]


class Settings(ServiceSettings):
    service: ClassVar[str] = "notifier"

    client_secret: SecretStr
    """Of notifier's own OAuth client: it reads revocations at auth and has one-time links made at users."""
    users_url: str
    """Users' internal address."""
    smtp_host: str
    """The mail server that all mails are handed to."""
    smtp_port: int = Field(ge=1, le=65535)
    """Its port: usually 587 with `starttls`, 465 with `implicit`."""
    smtp_tls: Literal["off", "starttls", "implicit"] = "off"
    """`starttls` and `implicit` (RFC 8314 §3) send nothing without a verified certificate."""
    smtp_username: str | None = None
    """Set it where the mail server asks for a sign-in. It needs `starttls` or `implicit`."""
    smtp_password: SecretStr | None = None
    """The password of that user."""
    smtp_connections: int = Field(default=10, ge=1, le=100)
    """Mails that one deliverer sends side by side. Few leave connections idle while outcomes are recorded: measured, 16
    send three times as many as 4."""
    mail_from: str = "Waybill <no-reply@waybill.invalid>"
    """The sender of every mail."""
    verify_email_page: str | None = None
    """The page that a verification mail links to, with `?token=…` added: a shop's own. Unset, users' plain one."""
    reset_password_page: str | None = None
    """The same for the mail that resets a password."""
    delivery_lease: float = Field(default=12.0, ge=0.5, le=300)
    """Seconds after which what a deliverer that died was sending is taken over by another."""
    webhook_key: SecretStr
    """32 bytes, base64: encrypts the secrets of webhooks at rest."""
    webhook_connections: int = Field(default=32, ge=1, le=200)
    """Webhooks that one deliverer posts to side by side."""
    webhook_allow: Annotated[frozenset[tuple[str, int]], NoDecode] = frozenset()
    """`host:port,…` that webhooks may reach over http or at addresses that are not public, IPv6 in brackets."""

    @field_validator("mail_from")
    @classmethod
    def _an_address(cls, value: str) -> str:
        name, address = parseaddr(value)
        try:
            parsed = Address(display_name=name, addr_spec=address)
        except (ValueError, IndexError, MessageError):
            parsed = Address()
        if not (parsed.username and parsed.domain):
            raise ValueError("not an address, as in Waybill <no-reply@example.com>")
        return value

    @field_validator("webhook_allow", mode="before")
    @classmethod
    def _hosts_and_ports(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        entries = [entry.strip() for entry in value.split(",") if entry.strip()]
        found = [re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/\[\]]+)):(\d{1,5})", entry) for entry in entries]
        if not all(found):
            raise ValueError("a comma list of host:port")
        return {((match[1] or match[2]).lower(), int(match[3])) for match in found if match}

    @field_validator("webhook_key")
    @classmethod
    def _a_key(cls, value: SecretStr) -> SecretStr:
        if len(_decoded(value)) != 32:
            raise ValueError("32 bytes in base64")
        return value

    @property
    def webhook_key_bytes(self) -> bytes:
        return _decoded(self.webhook_key)

    @model_validator(mode="after")
    def _sign_in_encrypted(self) -> Self:
        if self.smtp_username is not None and self.smtp_tls == "off":
            raise ValueError("smtp_username needs smtp_tls: a password must not travel in clear")
        return self

    @property
    def link_pages(self) -> dict[LinkPurpose, str]:
        return {
            "verify_email": self.verify_email_page or f"{self.public_url}/email-verifications/page",
            "reset_password": self.reset_password_page or f"{self.public_url}/password-resets/page",
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
