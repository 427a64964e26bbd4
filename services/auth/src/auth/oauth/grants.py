"""The token endpoint's grant types: authorization code, password, refresh token, client credentials.

This code owns its transactions. The changes of a refusal are committed before it is sent, and no network call happens
inside a transaction.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, Never

from prometheus_client import Counter

from auth.clients.registry import DEFAULT_CLIENT
from auth.errors import InvalidGrant, TemporarilyUnavailable, UnauthorizedClient, UnsupportedGrantType
from auth.keys.keyring import Keyring
from auth.models import ADMIN, SessionLimits
from auth.oauth.answers import TokenAnswer
from auth.oauth.client_authentication import AuthenticatedClient, ClientKind, authenticate_client
from auth.oauth.form import ClientCredentials, Form
from auth.oauth.sign_in import SignInCheck
from auth.scopes import IDENTITY_SCOPES, narrow_resources, narrow_scope
from auth.sessions import handlers as sessions
from auth.sessions.codes import CodeUse, redeem_code
from auth.sessions.handlers import Refused, SignedIn, describe_device
from auth.settings import Settings
from auth.tokens import refresh
from auth.tokens.access import AccessTokenContent, claims
from auth.tokens.identity import TYPE as ID_TOKEN
from auth.tokens.identity import IdentityContent, identity_claims
from common.db.database import Database, new_id, utc_now
from common.observability.log_limit import limited_logger
from common.security.service_client import ServiceClient

log = limited_logger(__name__)

TOKEN_REUSE: Final = Counter("waybill_token_reuse_total", "Sessions ended because a used token or code came back.")

_VERIFY_ATTEMPTS: Final = 3
"""Further ones if the person changed at users between verification and sign-in."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request to the token endpoint. Users throttles by `network`; the list of sessions shows `device`."""

    form: Form
    credentials: ClientCredentials | None
    network: str
    device: str


class TokenEndpoint:
    def __init__(self, settings: Settings, database: Database, keyring: Keyring, users: ServiceClient) -> None:
        self._settings = settings
        self._database = database
        self._keyring = keyring
        self._secret = settings.refresh_token_bytes
        self._check = SignInCheck(database, users, self._secret)
        self._limits = limits_of(settings)
        self._grants: Mapping[str, Callable[[TokenRequest, AuthenticatedClient], Awaitable[TokenAnswer]]] = {
            "authorization_code": self._authorization_code,
            "password": self._password,
            "refresh_token": self._refresh_token,
            "client_credentials": self._client_credentials,
        }

    async def issue(self, request: TokenRequest) -> TokenAnswer:
        """Exchanges a grant for tokens. Raises an `OAuthError`."""
        grant_type = request.form.require("grant_type")
        grant = self._grants.get(grant_type)
        if grant is None or (grant_type == "password" and not self._settings.has_password_grant):
            raise UnsupportedGrantType
        credentials = request.credentials
        if credentials is None and grant_type != "client_credentials":
            credentials = ClientCredentials(DEFAULT_CLIENT)
        client = await authenticate_client(credentials, self._settings, self._database)
        if grant_type not in client.grant_types:
            raise UnauthorizedClient
        return await grant(request, client)

    async def _authorization_code(self, request: TokenRequest, client: AuthenticatedClient) -> TokenAnswer:
        """RFC 6749 §4.1.3, RFC 7636 §4.5. `resource` narrows this access token only."""
        form = request.form
        use = CodeUse(
            code=form.require("code"),
            client_id=client.client_id,
            needs_consent=client.kind is not ClientKind.FIRST_PARTY,
            redirect_uri=form.require("redirect_uri"),
            verifier=form.require("code_verifier"),
            device=request.device,
        )
        async with self._database.transaction() as session:
            outcome = await redeem_code(session, use, secret=self._secret, limits=self._limits, now=utc_now())
            if isinstance(outcome, SignedIn):
                # Inside the transaction: an invalid resource rolls back, and the code stays unused.
                content = self._content(outcome, None, form.all("resource"), client)
        if isinstance(outcome, Refused):
            _refuse(outcome)
        return self._answer(outcome, content, client)

    async def _password(self, request: TokenRequest, client: AuthenticatedClient) -> TokenAnswer:
        """RFC 6749 §4.3, for first-party clients only."""
        form = request.form
        username, password = form.require("username"), form.require("password")
        scopes = narrow_scope(form.get("scope"), client.scopes, IDENTITY_SCOPES)
        resources = narrow_resources(form.all("resource"), self._settings.resources, self._settings.other_resources)
        origin = self._check.origin(request.network, describe_device(request.device), client.client_id)
        device = await self._check.device(form.get("refresh_token"), client_id=client.client_id)
        person = known_version = None
        for _ in range(_VERIFY_ATTEMPTS):
            person = await self._check.verify(
                username,
                password,
                network=request.network,
                origin=origin,
                otp=form.get("otp"),
                device=device,
                stale=person,
            )
            async with self._database.transaction() as session:
                outcome = await sessions.start_session(
                    session,
                    person,
                    origin,
                    scopes=scopes,
                    resources=resources,
                    known_version=known_version,
                    secret=self._secret,
                    limits=self._limits,
                    now=utc_now(),
                )
            if isinstance(outcome, SignedIn):
                return self._answer(outcome, self._content(outcome), client)
            if outcome.reason != "stale":
                _refuse(outcome)
            known_version = outcome.known_version
        raise TemporarilyUnavailable(headers={"Retry-After": "1"})

    async def _refresh_token(self, request: TokenRequest, client: AuthenticatedClient) -> TokenAnswer:
        """RFC 6749 §6. `scope` and `resource` narrow this access token only, not the later ones of the session."""
        form = request.form
        token = refresh.parse(form.require("refresh_token"))
        if token is None:
            raise InvalidGrant
        async with self._database.transaction() as session:
            outcome = await sessions.refresh_session(
                session,
                token,
                client_id=client.client_id,
                secret=self._secret,
                limits=self._limits,
                now=utc_now(),
            )
            if isinstance(outcome, SignedIn):
                # Inside the transaction: an invalid scope or resource rolls back, and the refresh token stays unused.
                content = self._content(outcome, form.get("scope"), form.all("resource"), client)
        if isinstance(outcome, Refused):
            _refuse(outcome)
        return self._answer(outcome, content, client)

    async def _client_credentials(self, request: TokenRequest, client: AuthenticatedClient) -> TokenAnswer:
        """RFC 6749 §4.4. The token has a `sid` of its own, by which it can be revoked."""
        content = AccessTokenContent(
            subject=client.client_id,
            client_id=client.client_id,
            scopes=narrow_scope(request.form.get("scope"), client.scopes),
            resources=narrow_resources(
                request.form.all("resource"), self._settings.resources, self._settings.other_resources
            ),
            session_id=new_id(),
            session_version=client.session_version,
        )
        return self._sign(content)

    def _answer(self, signed_in: SignedIn, content: AccessTokenContent, client: AuthenticatedClient) -> TokenAnswer:
        """A person's tokens: with the scope `openid` an ID token as well, and a refresh token if the client has any."""
        answer = self._sign(content)
        family, added = signed_in.session, dict[str, str | None]()
        if client.kind is ClientKind.FIRST_PARTY:
            added["second_factor"] = self._second_factor_of(signed_in)
        if "refresh_token" in client.grant_types:
            added["refresh_token"] = signed_in.refresh_token.text
        if "openid" in content.scopes:
            identity = IdentityContent(
                subject=family.user_id,
                client_id=family.client_id,
                session_id=family.id,
                authenticated_at=family.auth_time,
                amr=family.amr,
                nonce=signed_in.nonce,
            )
            payload = identity_claims(
                identity,
                access_token=answer.access_token,
                issuer=self._settings.public_url,
                now=utc_now(),
                lifetime=self._settings.access_token_lifetime,
            )
            added["id_token"] = self._keyring.sign(payload, token_type=ID_TOKEN)
        return answer.model_copy(update=added)

    def _content(
        self,
        signed_in: SignedIn,
        scope: str | None = None,
        resources: Collection[str] = (),
        client: AuthenticatedClient | None = None,
    ) -> AccessTokenContent:
        """What an access token of the session allows.

        A managed client's has no role, so that it does what its scopes say and nothing else, and no scope that an
        administrator has taken from the client since.
        """
        family = signed_in.session
        scopes, roles = family.scopes, [signed_in.role]
        if self._second_factor_of(signed_in) == "required":
            roles = []
        if client is not None and client.kind is not ClientKind.FIRST_PARTY:
            scopes, roles = [each for each in scopes if each in client.scopes], []
        return AccessTokenContent(
            subject=str(family.user_id),
            client_id=family.client_id,
            scopes=narrow_scope(scope, scopes),
            resources=narrow_resources(resources, family.resources),
            session_id=family.id,
            session_version=signed_in.session_version,
            roles=roles,
            authenticated_at=family.auth_time,
        )

    def _second_factor_of(self, signed_in: SignedIn) -> Literal["required", "advised"] | None:
        """What an administrator is to know whose session began without a second factor."""
        if signed_in.role != ADMIN or "mfa" in signed_in.session.amr:
            return None
        return self._settings.admin_second_factor

    def _sign(self, content: AccessTokenContent) -> TokenAnswer:
        lifetime = self._settings.access_token_lifetime
        payload = claims(content, issuer=self._settings.public_url, now=utc_now(), lifetime=lifetime)
        return TokenAnswer(
            access_token=self._keyring.sign(payload),
            expires_in=int(lifetime.total_seconds()),
            scope=content.scope,
        )


def limits_of(settings: Settings) -> SessionLimits:
    return SessionLimits(
        idle=timedelta(days=settings.refresh_idle_days),
        absolute=timedelta(days=settings.refresh_absolute_days),
        retry=timedelta(seconds=settings.refresh_window_seconds),
    )


def _refuse(outcome: Refused) -> Never:
    """Raises the same error for every cause. The cause would help only a client that should not have the token."""
    log.info("grant refused", reason=outcome.reason)
    if outcome.reason in {"reuse", "code_reuse"}:
        TOKEN_REUSE.inc()
    raise InvalidGrant
