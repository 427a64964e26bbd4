"""The three grants of the token endpoint: each takes a request and answers with tokens.

They own their transactions: what a refusal changed is committed before it is answered, and nobody is asked over the
network inside one.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Never

import structlog

from auth.errors import (
    InvalidGrant,
    TemporarilyUnavailable,
    UnauthorizedClient,
    UnsupportedGrantType,
)
from auth.keys.keyring import Keyring
from auth.models import Limits
from auth.oauth.answers import TokenAnswer
from auth.oauth.client_authentication import DEFAULT_CLIENT, OAuthClient, authenticate_client
from auth.oauth.form import ClientCredentials, Form
from auth.oauth.scopes import narrow_resources, narrow_scope
from auth.oauth.users_client import verify_password
from auth.sessions import handlers as sessions
from auth.sessions.handlers import Refused, SignedIn
from auth.settings import Settings
from auth.tokens import refresh
from auth.tokens.access import Grant, claims
from auth.tokens.refresh import PresentedToken
from common.db.database import Database, new_id, utc_now
from common.security.service_client import ServiceClient

log = structlog.get_logger(__name__)

_STALE_TRIES: Final = 2


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request to the token endpoint. `network` and `device` are where it comes from, for throttling and for show."""

    form: Form
    credentials: ClientCredentials | None
    network: str
    device: str


class TokenEndpoint:
    def __init__(self, settings: Settings, database: Database, keyring: Keyring, users: ServiceClient) -> None:
        self._settings = settings
        self._database = database
        self._keyring = keyring
        self._users = users
        self._secret = settings.refresh_token_bytes
        self._limits = limits_of(settings)
        self._grants: Mapping[str, Callable[[TokenRequest, OAuthClient], Awaitable[TokenAnswer]]] = {
            "password": self._password,
            "refresh_token": self._refresh_token,
            "client_credentials": self._client_credentials,
        }

    async def answer(self, request: TokenRequest) -> TokenAnswer:
        """Raises an `OAuthError`."""
        grant_type = request.form.require("grant_type")
        grant = self._grants.get(grant_type)
        if grant is None:
            raise UnsupportedGrantType
        credentials = request.credentials
        if credentials is None and grant_type != "client_credentials":
            credentials = ClientCredentials(DEFAULT_CLIENT)
        client = await authenticate_client(credentials, self._settings, self._database)
        if grant_type not in client.grant_types:
            raise UnauthorizedClient
        return await grant(request, client)

    async def _password(self, request: TokenRequest, client: OAuthClient) -> TokenAnswer:
        """RFC 6749 §4.3, for first-party clients only."""
        form = request.form
        username, password = form.require("username"), form.require("password")
        scopes = narrow_scope(form.get("scope"), client.scopes)
        resources = narrow_resources(form.all("resource"), self._settings.resources, self._settings.other_resources)
        for _ in range(_STALE_TRIES):
            person = await verify_password(self._users, username, password, request.network)
            async with self._database.transaction() as session:
                outcome = await sessions.start(
                    session,
                    person,
                    client_id=client.client_id,
                    scopes=scopes,
                    resources=resources,
                    device=request.device,
                    secret=self._secret,
                    limits=self._limits,
                    now=utc_now(),
                )
            if isinstance(outcome, SignedIn):
                return self._mint(_grant(outcome), outcome.refresh_token)
            if outcome.reason != "stale":
                _refuse(outcome)
        raise TemporarilyUnavailable(headers={"Retry-After": "1"})

    async def _refresh_token(self, request: TokenRequest, client: OAuthClient) -> TokenAnswer:
        """RFC 6749 §6. `scope` and `resource` narrow this access token, not what the next one may have."""
        form = request.form
        token = refresh.parse(form.require("refresh_token"))
        if token is None:
            raise InvalidGrant
        async with self._database.transaction() as session:
            outcome = await sessions.refresh(
                session,
                token,
                client_id=client.client_id,
                secret=self._secret,
                limits=self._limits,
                now=utc_now(),
            )
            if isinstance(outcome, SignedIn):
                # Inside, so that a request for too much is undone: it must not use up the token.
                grant = _grant(outcome, form.get("scope"), form.all("resource"))
        if isinstance(outcome, Refused):
            _refuse(outcome)
        return self._mint(grant, outcome.refresh_token)

    async def _client_credentials(self, request: TokenRequest, client: OAuthClient) -> TokenAnswer:
        """RFC 6749 §4.4. The token's `sid` is its own, so that it too can be revoked."""
        grant = Grant(
            subject=client.client_id,
            client_id=client.client_id,
            scopes=narrow_scope(request.form.get("scope"), client.scopes),
            resources=narrow_resources(
                request.form.all("resource"), self._settings.resources, self._settings.other_resources
            ),
            session_id=new_id(),
            session_version=client.session_version,
        )
        return self._mint(grant)

    def _mint(self, grant: Grant, refresh_token: PresentedToken | None = None) -> TokenAnswer:
        lifetime = self._settings.access_token_lifetime
        said = claims(grant, issuer=self._settings.public_url, now=utc_now(), lifetime=lifetime)
        return TokenAnswer(
            access_token=self._keyring.sign(said),
            expires_in=int(lifetime.total_seconds()),
            refresh_token=refresh_token.text if refresh_token is not None else None,
            scope=grant.scope,
        )


def limits_of(settings: Settings) -> Limits:
    return Limits(
        idle=timedelta(days=settings.refresh_idle_days),
        absolute=timedelta(days=settings.refresh_absolute_days),
        window=timedelta(seconds=settings.refresh_window_seconds),
    )


def _grant(signed_in: SignedIn, scope: str | None = None, resources: Collection[str] = ()) -> Grant:
    family = signed_in.session
    return Grant(
        subject=str(family.user_id),
        client_id=family.client_id,
        scopes=narrow_scope(scope, family.scopes),
        resources=narrow_resources(resources, family.resources),
        session_id=family.id,
        session_version=signed_in.session_version,
        roles=(signed_in.role,),
        authenticated_at=family.created_at,
    )


def _refuse(outcome: Refused) -> Never:
    """One answer for every cause: which it was helps nobody but who should not have the token."""
    log.info("grant refused", reason=outcome.reason)
    raise InvalidGrant
