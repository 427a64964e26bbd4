"""The issuer's keys in memory: signs with the active one, publishes all, and looks for changes every few seconds."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import jwt
import structlog

from auth import queries
from auth.keys import handlers
from auth.keys.handlers import KeyPolicy
from auth.keys.keypairs import KeyEncryption, PrivateKey, WrongKeyEncryptionKey
from auth.models import KeyStatus, SigningKey
from auth.settings import Settings
from common.db.database import Database, utc_now
from common.errors import Unavailable
from common.security.verification_keys import VerificationKey, parse_jwk

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 5.0
"""How long a replica may sign with a key that another one has retired; a retired key stays published far longer."""
_RETIRING_MARGIN: Final = timedelta(minutes=10)


def policy_of(settings: Settings) -> KeyPolicy:
    return KeyPolicy(
        alg=settings.signing_algorithm,
        pending=timedelta(seconds=settings.key_pending_seconds),
        active=timedelta(days=settings.key_active_days),
        retiring=settings.access_token_lifetime + _RETIRING_MARGIN,
    )


@dataclass(frozen=True, slots=True)
class KeySet:
    """The published set (RFC 7517 §5) as it is sent."""

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class _Signer:
    kid: str
    alg: str
    private: PrivateKey


class Keyring:
    """Also a `common.security.verification_keys.KeySource`: auth verifies its own tokens with it."""

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
            raise Unavailable("The signing keys are not loaded yet")
        return self._key_set

    def sign(self, claims: Mapping[str, Any]) -> str:
        """An access token (RFC 9068 §2.1). Raises `Unavailable` until the keys are loaded."""
        if self._signer is None:
            raise Unavailable("The signing keys are not loaded yet")
        headers = {"typ": "at+jwt", "kid": self._signer.kid}
        return jwt.encode(dict(claims), self._signer.private, algorithm=self._signer.alg, headers=headers)

    def cached(self, kid: str) -> VerificationKey | None:
        return self._published.get(kid)

    async def find(self, kid: str) -> VerificationKey | None:
        if not self._published:
            raise Unavailable("The signing keys are not loaded yet")
        return self._published.get(kid)

    async def check(self) -> None:
        if self._signer is None:
            raise ConnectionError("no signing key")

    async def run(self) -> None:
        """Until cancelled. While the database is away it signs with what it has."""
        while True:
            try:
                await self.refresh()
            except WrongKeyEncryptionKey as error:
                log.critical("signing keys cannot be read", cause=str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may succeed
                log.warning("signing keys not read", error=type(error).__name__)
            await asyncio.sleep(POLL_SECONDS if self._signer is not None else 0.2)

    async def refresh(self) -> None:
        """Reads the keys, after taking the steps of their lives that are due."""
        async with self._database.transaction() as session:
            present = list(await queries.signing_keys(session))
        if handlers.is_due(present, self._policy, utc_now()):
            async with self._database.transaction() as session:
                await handlers.advance(session, self._encryption, self._policy, utc_now())
            async with self._database.transaction() as session:
                present = list(await queries.signing_keys(session))
        self._take(present)

    def _take(self, present: list[SigningKey]) -> None:
        active = next(key for key in present if key.status == KeyStatus.ACTIVE)
        if self._signer is None or self._signer.kid != active.kid:
            self._signer = _Signer(active.kid, active.alg, self._encryption.unseal(active))
            log.info("signing with", kid=active.kid, alg=active.alg)
        if self._published.keys() != {key.kid for key in present}:
            self._published = {key.kid: self._published.get(key.kid) or parse_jwk(key.jwk) for key in present}
            body = json.dumps({"keys": [key.jwk for key in present]}).encode()
            self._key_set = KeySet(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
