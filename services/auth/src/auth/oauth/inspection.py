"""Revocation (RFC 7009) and introspection (RFC 7662) of access tokens and refresh tokens."""

from auth import queries
from auth.clients.registry import DEFAULT_CLIENT
from auth.errors import InvalidClient, UnauthorizedClient
from auth.keys.keyring import Keyring
from auth.models import SubjectStatus
from auth.oauth.answers import Introspection
from auth.oauth.client_authentication import AuthenticatedClient, ClientKind, authenticate_client
from auth.oauth.form import ClientCredentials, Form
from auth.oauth.own_tokens import OwnTokenVerifier
from auth.sessions import handlers as sessions
from auth.settings import Settings
from auth.tokens import refresh
from auth.tokens.refresh import RefreshToken
from common.db.database import Database, utc_now
from common.security.tokens import InvalidToken, Principal

_INACTIVE = Introspection(active=False)


class TokenInspection:
    def __init__(self, settings: Settings, database: Database, keyring: Keyring) -> None:
        self._settings = settings
        self._database = database
        self._tokens = OwnTokenVerifier(keyring, database, settings, audience=None)
        self._secret = settings.refresh_token_bytes

    async def revoke(self, form: Form, credentials: ClientCredentials | None) -> None:
        """Ends the token's session, so that access tokens and refresh token are both revoked (RFC 7009 §2.1).

        Does nothing for an invalid token. Raises `UnauthorizedClient` for another client's token.
        """
        credentials = credentials or ClientCredentials(DEFAULT_CLIENT)
        client = await authenticate_client(credentials, self._settings, self._database)
        token = form.require("token")
        refresh_token = refresh.parse(token)
        if refresh_token is not None:
            await self._revoke_family(refresh_token, client)
            return
        try:
            principal = await self._tokens.verify(token)
        except InvalidToken:
            return
        if principal.client_id != client.client_id:
            raise UnauthorizedClient("The token was issued to another client")
        async with self._database.transaction() as session:
            await sessions.revoke_access_token(session, principal, now=utc_now())

    async def introspect(self, form: Form, credentials: ClientCredentials | None) -> Introspection:
        """Describes a valid token. For a managed client, tokens of other clients are inactive, unless it has the scope
        `tokens:introspect`.
        """
        client = await authenticate_client(credentials, self._settings, self._database)
        if client.is_public:
            raise InvalidClient("Introspection requires a client with a secret")
        token = form.require("token")
        refresh_token = refresh.parse(token)
        if refresh_token is not None:
            answer = await self._inspect_family(refresh_token)
        else:
            try:
                answer = self._describe(await self._tokens.verify(token))
            except InvalidToken:
                return _INACTIVE
        may_see_all = client.kind is not ClientKind.MANAGED or "tokens:introspect" in client.scopes
        return answer if may_see_all or answer.client_id == client.client_id else _INACTIVE

    async def _revoke_family(self, token: RefreshToken, client: AuthenticatedClient) -> None:
        async with self._database.transaction() as session:
            found = await queries.lock_family(session, token.family)
            family = None if found is None else found[1]
            if family is None or not family.has_issued(token, self._secret):
                return
            if family.client_id != client.client_id:
                raise UnauthorizedClient("The token was issued to another client")
            if family.revoked_at is None:
                await sessions.revoke_session(session, family, "token_revoked", utc_now())

    async def _inspect_family(self, token: RefreshToken) -> Introspection:
        async with self._database.transaction() as session:
            found = await queries.family(session, token.family)
        if found is None:
            return _INACTIVE
        subject, family = found
        is_newest = token.digest == family.token_hash
        if not is_newest or not family.is_live(utc_now()) or subject.status != SubjectStatus.ACTIVE:
            return _INACTIVE
        return Introspection(
            active=True,
            scope=" ".join(family.scopes),
            client_id=family.client_id,
            sub=str(family.user_id),
            sid=str(family.id),
            iss=self._settings.public_url,
            exp=int(family.idle_until.timestamp()),
            iat=int(family.last_used_at.timestamp()),
        )

    def _describe(self, principal: Principal) -> Introspection:
        return Introspection(
            active=True,
            scope=" ".join(sorted(principal.scopes)),
            client_id=principal.client_id,
            token_type="Bearer",  # noqa: S106 - the scheme's name
            sub=principal.subject,
            sid=principal.session_id,
            iss=self._settings.public_url,
            aud=sorted(principal.audiences),
            exp=principal.expires_at,
            iat=principal.issued_at,
            jti=principal.token_id,
            roles=sorted(principal.roles),
        )
