"""Request and response bodies of auth's routes, other than the OAuth endpoints."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from auth.scopes import ManagedScope
from auth.sign_ins.models import Outcome
from common.web import Model, StrictModel
from common.web.single_line import SINGLE_LINE


class SessionOut(Model):
    id: uuid.UUID
    client_id: str
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


GrantType = Literal["client_credentials", "refresh_token"]
ClientName = Annotated[str, Field(min_length=1, max_length=100), SINGLE_LINE]


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
    client_secret: Annotated[str, Field(description="Shown only once: the server stores its hash.")]
