"""Bodies of auth's answers and requests."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from auth.scopes import ManagedScope
from common.line import Line
from common.web import Model, StrictModel


class TokenAnswer(Model):
    """RFC 6749 §5.1."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the scheme's name
    expires_in: Annotated[int, Field(description="Seconds until the access token expires.")]
    refresh_token: str | None = None
    scope: Annotated[str, Field(description="Space-separated; what was granted.")]


class OAuthErrorAnswer(Model):
    """RFC 6749 §5.2."""

    error: str
    error_description: str


class Introspection(Model):
    """RFC 7662 §2.2. Nothing but `active` is said of a token that is not."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    token_type: str | None = None
    sub: str | None = None
    sid: str | None = None
    iss: str | None = None
    aud: list[str] | None = None
    exp: int | None = None
    iat: int | None = None
    jti: str | None = None
    roles: list[str] | None = None


class Metadata(Model):
    """RFC 8414 §2."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    revocation_endpoint: str
    introspection_endpoint: str
    scopes_supported: list[str]
    response_types_supported: list[str]
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    introspection_endpoint_auth_methods_supported: list[str]
    service_documentation: str


class PublishedKeys(Model):
    """RFC 7517 §5."""

    keys: list[dict[str, Any]]


class SessionOut(Model):
    id: uuid.UUID
    client_id: str
    device: Annotated[str, Field(description="What signed in, as it named itself.")]
    created_at: datetime
    last_used_at: datetime
    current: Annotated[bool, Field(description="Whether this is the session of this very request.")]


class RevokedSession(Model):
    session_id: uuid.UUID


class RevokedSubject(Model):
    subject: str
    min_session_version: int
    except_session_id: uuid.UUID | None = None
    except_session_version: int | None = None


class Revocations(Model):
    """Everything revoked that an unexpired token may still be about."""

    sessions: list[RevokedSession]
    subjects: list[RevokedSubject]


GrantType = Literal["client_credentials", "refresh_token"]
ClientName = Annotated[Line, Field(min_length=1, max_length=100)]


class RegisterClient(StrictModel):
    name: ClientName
    grant_types: Annotated[list[GrantType], Field(min_length=1, max_length=2)]
    scopes: Annotated[list[ManagedScope], Field(max_length=20, default_factory=list)]


class ClientOut(Model):
    client_id: str
    name: str
    grant_types: list[str]
    scopes: list[str]
    created_at: datetime


class ClientWithSecret(ClientOut):
    client_secret: Annotated[str, Field(description="Shown this once; only its hash is kept.")]
