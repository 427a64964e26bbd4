"""Auth's own use of access tokens: it issues one to itself to call users, and verifies those sent to auth."""

import time
import uuid

from auth import queries
from auth.keys.keyring import Keyring
from auth.settings import Settings
from auth.tokens.access import AccessTokenContent, claims
from common.db.database import Database, new_id, utc_now
from common.security.tokens import InvalidToken, Principal, TokenVerifier
from common.settings import resource


class OwnTokenSource:
    """A `common.security.service_token.TokenSource` that needs no network: auth signs its own token."""

    def __init__(self, keyring: Keyring, settings: Settings) -> None:
        self._keyring = keyring
        self._settings = settings
        self._token = ""
        self._renew_at = float("-inf")

    async def token(self) -> str:
        if time.monotonic() >= self._renew_at:
            lifetime = self._settings.access_token_lifetime
            content = AccessTokenContent(
                subject="auth",
                client_id="auth",
                scopes=("credentials:verify", "profiles:read"),
                resources=(resource("users"),),
                session_id=new_id(),
                session_version=1,
            )
            payload = claims(content, issuer=self._settings.public_url, now=utc_now(), lifetime=lifetime)
            self._token = self._keyring.sign(payload)
            self._renew_at = time.monotonic() + lifetime.total_seconds() * 0.8
        return self._token

    def forget(self, token: str) -> None:
        if token == self._token:
            self._renew_at = float("-inf")


class OwnTokenVerifier(TokenVerifier):
    """Verifies with auth's own keys, and checks revocation in auth's own tables, where it is known first.

    `audience` None accepts tokens for any service, as revocation and introspection must.
    """

    def __init__(self, keyring: Keyring, database: Database, settings: Settings, *, audience: str | None) -> None:
        super().__init__(issuer=settings.public_url, audience=audience, keys=keyring)
        self._database = database

    async def verify(self, token: str) -> Principal:
        principal = await super().verify(token)
        try:
            session_id = uuid.UUID(principal.session_id or "")
        except ValueError:
            raise InvalidToken("The access token names no session") from None
        async with self._database.transaction() as session:
            revoked = await queries.is_token_revoked(
                session,
                session_id,
                subject_id=principal.subject,
                session_version=principal.session_version or 0,
                of_client=principal.is_client,
            )
        if revoked:
            raise InvalidToken("The access token was revoked")
        return principal
