"""Request and response bodies of auth's routes, other than the OAuth endpoints."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from auth.key_sets import usable_key_set
from auth.redirect_uris import RedirectUri
from auth.scopes import ManagedScope
from auth.sign_in_models import Outcome
from common.web import Model, StrictModel
from common.web.single_line import SINGLE_LINE


class SessionOut(Model):
    id: uuid.UUID
    client_id: str
    amr: Annotated[list[str], Field(description="How you signed in (RFC 8176): `pwd`, with a second factor `mfa`.")]
    device: Annotated[str, Field(description="The browser or app, from the `User-Agent` header of the sign-in.")]
    created_at: datetime
    last_used_at: datetime
    current: Annotated[bool, Field(description="Whether this is the session of the token that made this request.")]


class SignInOut(Model):
    id: uuid.UUID
    created_at: datetime
    network: Annotated[str, Field(description="A digest of the network: equal for sign-ins from the same one.")]
    device: Annotated[str, Field(description="The browser or app, from the `User-Agent` header.")]
    client_id: str
    outcome: Annotated[
        Outcome,
        Field(
            description="`wrong`: password or code not accepted. `code_missing`: the password was right. `throttled`: "
            "too many failures, of which one a minute is listed."
        ),
    ]
    session_id: Annotated[uuid.UUID | None, Field(description="The session that it began.")]


class RevokedSession(Model):
    session_id: uuid.UUID


class RevokedSubject(Model):
    subject: str
    min_session_version: int
    except_session_id: uuid.UUID | None = None
    except_session_version: int | None = None


class Revocations(Model):
    """All revocations that may concern an unexpired token."""

    sessions: list[RevokedSession]
    subjects: list[RevokedSubject]


class GrantOut(Model):
    client_id: str
    name: str
    scopes: list[str]
    granted_at: datetime


GrantType = Literal["authorization_code", "client_credentials", "refresh_token"]
ClientName = Annotated[str, Field(min_length=1, max_length=100), SINGLE_LINE]
GrantTypes = Annotated[list[GrantType], Field(min_length=1, max_length=3)]
Scopes = Annotated[list[ManagedScope], Field(max_length=20)]
KeySet = Annotated[
    dict[str, Any],
    AfterValidator(usable_key_set),
    Field(
        description="Public keys (RFC 7517), ES256 or RS256, by which the client authenticates in place of a secret: "
        "`private_key_jwt` (RFC 7523)."
    ),
]
RedirectUris = Annotated[list[RedirectUri], Field(max_length=20)]

_OMITTED: Final[Any] = Field(default_factory=lambda: None)
"""Default of an optional field for which null is not valid."""


class RegisterClient(StrictModel):
    name: ClientName
    grant_types: GrantTypes
    scopes: Scopes = Field(default_factory=list)
    redirect_uris: RedirectUris = Field(default_factory=list)
    post_logout_redirect_uris: RedirectUris = Field(default_factory=list)
    public: Annotated[bool, Field(description="An app that cannot keep a secret, so that it gets none.")] = False
    jwks: KeySet | None = None


class ClientChange(StrictModel):
    """Fields that are left out keep their value."""

    name: ClientName = _OMITTED
    grant_types: GrantTypes = _OMITTED
    scopes: Scopes = _OMITTED
    redirect_uris: RedirectUris = _OMITTED
    post_logout_redirect_uris: RedirectUris = _OMITTED
    jwks: KeySet = _OMITTED


class NewSecret(StrictModel):
    revoke_previous: Annotated[
        bool, Field(description="Whether the secret before, and all tokens, are void at once. If not, after 24 hours.")
    ] = False


class ClientOut(Model):
    client_id: str
    name: str
    grant_types: list[str]
    scopes: list[str]
    redirect_uris: list[str]
    post_logout_redirect_uris: list[str]
    public: bool
    jwks: dict[str, Any] | None
    created_at: datetime


class ClientWithSecret(ClientOut):
    client_secret: Annotated[
        str, Field(description="Shown only once: the server stores its hash. A public client has none.")
    ] = Field(default_factory=str)
