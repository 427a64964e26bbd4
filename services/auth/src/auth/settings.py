"""Auth's settings."""

import base64
import binascii
from datetime import timedelta
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, Field, SecretStr, model_validator

from common.settings import ServiceSettings, resource


class StaticClient(BaseModel, frozen=True):
    """A service of ours as an OAuth client; only the SHA-256 of its secret is known here."""

    client_id: Annotated[str, Field(pattern=r"[a-z][a-z0-9-]{0,63}")]
    secret_sha256: Annotated[str, Field(pattern=r"[0-9a-f]{64}")]
    scopes: tuple[str, ...] = ()


class Settings(ServiceSettings):
    service: ClassVar[str] = "auth"

    users_url: str
    """Users' internal address: it alone can tell whether a password is right."""
    key_encryption_key: SecretStr
    """32 bytes, base64: encrypts the private signing keys at rest."""
    refresh_token_secret: SecretStr
    """At least 32 bytes, base64: refresh tokens are derived with it."""
    service_clients: tuple[StaticClient, ...] = ()
    resource_servers: tuple[Annotated[str, Field(pattern=r"^[a-z]+$")], ...] = ("auth", "users", "orders", "notifier")
    """Names of our services: a token is for all of them unless fewer are asked for."""
    other_resources: tuple[Annotated[str, Field(pattern=r"^https?://[^\s#]+$")], ...] = ()
    """Resource URIs (RFC 8707 §2) of services that are not ours; a token is for one of them only where asked for."""

    signing_algorithm: Literal["ES256", "RS256"] = "ES256"
    access_token_seconds: Annotated[int, Field(ge=30, le=300)] = 300
    refresh_window_seconds: Annotated[float, Field(ge=0, le=60)] = 10.0
    """How long the parent of the newest refresh token is answered with that same token."""
    refresh_idle_days: Annotated[float, Field(gt=0, le=365)] = 14
    refresh_absolute_days: Annotated[float, Field(gt=0, le=365)] = 30
    key_pending_seconds: Annotated[int, Field(ge=0)] = 15 * 60
    """How long a new key is published before it signs: verifiers and gateways cache the set. Our own services know
    of it after 7 s at most, so with less than that some tokens would be refused for a moment."""
    key_active_days: Annotated[float, Field(gt=0)] = 30

    @model_validator(mode="after")
    def _secrets_are_keys(self) -> Self:
        if len(_decoded(self.key_encryption_key)) != 32:
            raise ValueError("key_encryption_key must be 32 bytes in base64")
        if len(_decoded(self.refresh_token_secret)) < 32:
            raise ValueError("refresh_token_secret must be at least 32 bytes in base64")
        return self

    @property
    def resources(self) -> tuple[str, ...]:
        """Resource URIs of our services."""
        return tuple(map(resource, self.resource_servers))

    @property
    def key_encryption_bytes(self) -> bytes:
        return _decoded(self.key_encryption_key)

    @property
    def refresh_token_bytes(self) -> bytes:
        return _decoded(self.refresh_token_secret)

    @property
    def access_token_lifetime(self) -> timedelta:
        return timedelta(seconds=self.access_token_seconds)


def _decoded(secret: SecretStr) -> bytes:
    try:
        return base64.b64decode(secret.get_secret_value().strip(), altchars=b"-_" if _is_urlsafe(secret) else None)
    except binascii.Error:
        return b""


def _is_urlsafe(secret: SecretStr) -> bool:
    return not {"-", "_"}.isdisjoint(secret.get_secret_value())
