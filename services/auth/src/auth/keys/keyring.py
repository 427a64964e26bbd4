"""The signing keys in memory: signs with the active one, publishes all, and reloads them every few seconds."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import jwt
import structlog
from jwt.types import Options
from sqlalchemy import func, select

from auth import queries
from auth.keys import handlers, keypairs
from auth.keys.handlers import KeyPolicy
from auth.keys.keypairs import PrivateKey
from auth.models import KeyStatus, SigningKey
from auth.settings import Settings
from common.db.database import Database
from common.errors import Unavailable
from common.runtime.background import every
from common.security.sealing import KeyEncryption, WrongKeyEncryptionKey
from common.security.verification_keys import VerificationKey, parse_jwk

log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 5.0
"""How long a replica may still sign with a key that another replica has retired."""
_RETRY_SECONDS: Final = 1.0
_NOT_LOADED: Final = "The signing keys are not loaded yet"
_RETIRING_MARGIN: Final = timedelta(minutes=10)
"""A retired key stays published this much longer than the last token it signed: more than `_POLL_SECONDS`."""


def policy_of(settings: Settings) -> KeyPolicy:
    return KeyPolicy(
        alg=settings.signing_algorithm,
        pending=timedelta(seconds=settings.key_pending_seconds),
        active=timedelta(days=settings.key_active_days),
        retiring=settings.access_token_lifetime + _RETIRING_MARGIN,
    )


@dataclass(frozen=True, slots=True)
class KeySet:
    """The published keys (RFC 7517 §5), serialised for the response."""

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class _Signer:
    kid: str
    alg: str
    private: PrivateKey


class Keyring:
    """Signs tokens. As a `common.security.verification_keys.KeySource` it also verifies those sent to auth."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._encryption = KeyEncryption(settings.key_encryption_bytes)
        self._policy = policy_of(settings)
        self._signer: _Signer | None = None
        self._published: dict[str, VerificationKey] = {}
        self._key_set: KeySet | None = None

    @property
    def key_set(self) -> KeySet:
        """Raises `Unavailable` until the keys are loaded."""
        if self._key_set is None:
            raise Unavailable(_NOT_LOADED)
        return self._key_set

    def sign(self, claims: Mapping[str, Any], *, token_type: str = "at+jwt") -> str:  # noqa: S107 - a type
        """A signed token, by default an access token (RFC 9068 §2.1). Raises `Unavailable` until keys are loaded."""
        if self._signer is None:
            raise Unavailable(_NOT_LOADED)
        headers = {"typ": token_type, "kid": self._signer.kid}
        return jwt.encode(dict(claims), self._signer.private, algorithm=self._signer.alg, headers=headers)

    def claims_of(self, token: str, *, token_type: str) -> dict[str, Any] | None:
        """The claims of a token that a published key signed, expired or not. None for any other text."""
        try:
            header = jwt.get_unverified_header(token)
            key = self._published.get(str(header.get("kid")))
            if key is None or header.get("typ") != token_type:
                return None
            unchecked: Options = {"verify_exp": False, "verify_aud": False, "verify_iat": False}
            claims: dict[str, Any] = jwt.decode(token, key.public, algorithms=[key.alg], options=unchecked)
        except (jwt.InvalidTokenError, ValueError):
            return None
        return claims

    def cached(self, kid: str) -> VerificationKey | None:
        return self._published.get(kid)

    async def find(self, kid: str) -> VerificationKey | None:
        if not self._published:
            raise Unavailable(_NOT_LOADED)
        return self._published.get(kid)

    async def check(self) -> None:
        if self._signer is None:
            raise ConnectionError("no signing key")

    async def run(self) -> None:
        """Reloads the keys every `_POLL_SECONDS`, and a second after an error. Signs with the loaded keys meanwhile."""
        await every(_RETRY_SECONDS, self._poll)

    async def _poll(self) -> None:
        try:
            await self.reload()
        except WrongKeyEncryptionKey as error:
            log.critical("signing keys cannot be read", cause=str(error))
        await asyncio.sleep(_POLL_SECONDS - _RETRY_SECONDS)

    async def reload(self) -> None:
        """Advances the keys if that is due by PostgreSQL's clock, then reads them. Raises `WrongKeyEncryptionKey`."""
        keys, now = await self._read()
        if handlers.is_due(keys, self._policy, now):
            async with self._database.transaction() as session:
                await handlers.advance_keys(session, self._encryption, self._policy, now)
            keys, _ = await self._read()
        self._use(keys)

    async def _read(self) -> tuple[Sequence[SigningKey], datetime]:
        async with self._database.transaction() as session:
            return await queries.signing_keys(session), (await session.execute(select(func.now()))).scalar_one()

    def _use(self, keys: Sequence[SigningKey]) -> None:
        active = next(key for key in keys if key.status == KeyStatus.ACTIVE)
        if self._signer is None or self._signer.kid != active.kid:
            self._signer = _Signer(active.kid, active.alg, keypairs.unseal(self._encryption, active))
            log.info("signing key loaded", kid=active.kid, alg=active.alg)
        if self._published.keys() != {key.kid for key in keys}:
            self._published = {key.kid: self._published.get(key.kid) or parse_jwk(key.jwk) for key in keys}
            body = json.dumps({"keys": [key.jwk for key in keys]}).encode()
            self._key_set = KeySet(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
