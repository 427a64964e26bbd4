"""Auth's two sides of its own tokens: the one it calls other services with, and those it is called with."""

import time
import uuid

from auth import queries
from auth.keys.keyring import Keyring
from auth.settings import Settings
from auth.tokens.access import Grant, claims
from common.db.database import Database, new_id, utc_now
from common.security.tokens import InvalidToken, Principal, TokenVerifier
from common.settings import resource


class OwnToken:
    """A `common.security.service_token.TokenSource` that needs no network: auth signs for itself."""

    def __init__(self, keyring: Keyring, settings: Settings) -> None:
        self._keyring = keyring
        self._settings = settings
        self._token = ""
        self._renew_at = float("-inf")

    async def token(self) -> str:
        if time.monotonic() >= self._renew_at:
            lifetime = self._settings.access_token_lifetime
            grant = Grant(
                subject="auth",
                client_id="auth",
                scopes=("credentials:verify",),
                resources=(resource("users"),),
                session_id=new_id(),
                session_version=1,
            )
            said = claims(grant, issuer=self._settings.public_url, now=utc_now(), lifetime=lifetime)
            self._token = self._keyring.sign(said)
            self._renew_at = time.monotonic() + lifetime.total_seconds() * 0.8
        return self._token

    def forget(self, token: str) -> None:
        if token == self._token:
            self._renew_at = float("-inf")


class OwnVerifier(TokenVerifier):
    """Verifies with auth's own keys, and asks its own tables about revocation: they know first.

    Without an `audience` it takes tokens for any service, as revocation and introspection must.
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
            revoked = await queries.is_revoked_session(
                session,
                session_id,
                subject_id=principal.subject,
                session_version=principal.session_version or 0,
                of_client=principal.is_client,
            )
        if revoked:
            raise InvalidToken("The access token was revoked")
        return principal
