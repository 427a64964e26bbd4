"""Local verification of access tokens (RFC 9068), strict where JWT libraries are lenient (RFC 8725).

It needs no web framework:

    verifier = TokenVerifier(issuer="https://api.example", audience="https://example/orders", keys=keys)
    principal = await verifier.verify(token)
"""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from common.errors import Forbidden, Unauthorized
from common.security.first_party import FIRST_PARTY
from common.security.strict_jwt import MAX_TOKEN_LENGTH, MalformedToken, identifier, integer, read_jwt
from common.security.verification_keys import KeySource, VerificationKey

TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
ALGORITHMS: Final = frozenset({"ES256", "RS256"})

_REQUIRED: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope")
_ENDED: Final = {"expired": "The access token has expired", "revoked": "The access token was revoked"}
_SCOPES: Final = re.compile(r"(?:[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*)?")  # RFC 6749 §3.3, or empty


class InvalidToken(Unauthorized):
    """The access token is malformed, expired, revoked, or not meant for this service (RFC 6750 §3.1)."""

    code, title = "invalid_token", "Access token not accepted"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


INSUFFICIENT_SCOPE: Final = 'Bearer error="insufficient_scope"'
"""`WWW-Authenticate` of a 403 where a token with other rights would succeed (RFC 6750 §3.1)."""


class NotAPerson(Forbidden):
    """The token is a client's own, where a person's is required."""

    def __init__(self) -> None:
        super().__init__("This needs a person's access token", headers={"WWW-Authenticate": INSUFFICIENT_SCOPE})


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller and their rights, as the token states them. Times are seconds since the epoch."""

    subject: str
    client_id: str
    audiences: frozenset[str]
    scopes: frozenset[str]
    roles: frozenset[str]
    session_id: str | None
    session_version: int | None
    auth_time: int | None
    token_id: str
    issued_at: int
    expires_at: int

    @property
    def is_client(self) -> bool:
        """Whether a client acts for itself and not for a person: `sub` is then the client's id (RFC 9068 §2.2)."""
        return self.subject == self.client_id

    @property
    def is_delegated(self) -> bool:
        """Whether a client of others acts for a person, who allowed it the token's scopes and nothing else."""
        return not self.is_client and self.client_id not in FIRST_PARTY

    @property
    def user_id(self) -> UUID:
        """The person's id. Raises `NotAPerson` where a client acts for itself."""
        if self.is_client:
            raise NotAPerson
        try:
            return UUID(self.subject)
        except ValueError:
            raise NotAPerson from None


class Denylist(Protocol):
    """Knows which principals lost access before their token expired."""

    def denies(self, principal: Principal) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Verified:
    principal: Principal
    key: VerificationKey


class TokenVerifier:
    """Checks signature, claims and revocation.

    A verified token is cached by its hash. After that only what can change is checked: its key, expiry and revocation.

    `audience` is this service's own resource URI. None accepts any and is right only for the issuer's own checks.
    `max_lifetime` and `leeway` are seconds; `remembered` is the cache's size in tokens.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | None,
        keys: KeySource,
        denylist: Denylist | None = None,
        max_lifetime: int = 300,
        leeway: int = 10,
        remembered: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._denylist = denylist
        self._max_lifetime = max_lifetime
        self._leeway = leeway
        self._remembered = remembered
        self._clock = clock
        self._verified: dict[bytes, _Verified] = {}

    async def verify(self, token: str) -> Principal:
        """The principal of a valid token. Raises `InvalidToken`, or `Unavailable` while there are no keys."""
        if len(token) > MAX_TOKEN_LENGTH or not token.isascii():
            raise InvalidToken("Not an access token")
        digest = hashlib.sha256(token.encode()).digest()
        verified = self._verified.get(digest)
        if verified is None or self._keys.cached(verified.key.kid) is not verified.key:
            verified = await self._verify(token)
            self._remember(digest, verified)
        principal = verified.principal
        if cause := self.ended(principal):
            del self._verified[digest]
            raise InvalidToken(_ENDED[cause])
        return principal

    def ended(self, principal: Principal) -> Literal["expired", "revoked"] | None:
        """Why the token of a principal that was verified earlier is not valid any more, or None."""
        if self._clock() >= principal.expires_at + self._leeway:
            return "expired"
        if self._denylist is not None and self._denylist.denies(principal):
            return "revoked"
        return None

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        while len(self._verified) >= self._remembered:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = verified

    async def _verify(self, token: str) -> _Verified:
        try:
            unverified = read_jwt(token)
            kid, alg = _check_header(unverified.header)
            # The claims come before the key: only a token that is valid except for its signature may cause a fetch.
            principal = self._principal(unverified.claims)
        except MalformedToken as error:
            raise InvalidToken(str(error) or "Not an access token") from None
        key = await self._keys.find(kid)
        if key is None:
            raise InvalidToken("The access token's key is not known")
        if key.alg != alg or not key.verifies(unverified.signed, unverified.signature):
            raise InvalidToken("The access token's signature is wrong")
        return _Verified(principal, key)

    def _principal(self, claims: dict[str, Any]) -> Principal:
        if any(name not in claims for name in _REQUIRED):
            raise InvalidToken("A claim is missing")
        if claims["iss"] != self._issuer:
            raise InvalidToken("The access token is from another issuer")
        audiences = _strings(claims["aud"], single=True)
        if self._audience is not None and self._audience not in audiences:
            raise InvalidToken("The access token is not for this service")
        issued_at, expires_at = self._dates(claims)
        scope = claims["scope"]
        if not isinstance(scope, str) or not _SCOPES.fullmatch(scope):
            raise InvalidToken("The scope claim is malformed")
        return Principal(
            subject=identifier(claims["sub"]),
            client_id=identifier(claims["client_id"]),
            audiences=frozenset(audiences),
            scopes=frozenset(scope.split()),
            roles=frozenset(_strings(claims.get("roles", []))),
            session_id=identifier(claims["sid"]) if "sid" in claims else None,
            session_version=integer(claims["sv"]) if "sv" in claims else None,
            auth_time=integer(claims["auth_time"]) if "auth_time" in claims else None,
            token_id=identifier(claims["jti"]),
            issued_at=issued_at,
            expires_at=expires_at,
        )

    def _dates(self, claims: dict[str, Any]) -> tuple[int, int]:
        now, issued_at, expires_at = self._clock(), integer(claims["iat"]), integer(claims["exp"])
        if now >= expires_at + self._leeway:
            raise InvalidToken("The access token has expired")
        if max(issued_at, integer(claims.get("nbf", 0))) > now + self._leeway:
            raise InvalidToken("The access token is not valid yet")
        if not 0 < expires_at - issued_at <= self._max_lifetime:
            raise InvalidToken("The access token lives too long")
        return issued_at, expires_at


def _check_header(header: dict[str, Any]) -> tuple[str, str]:
    kid, alg, typ = header.get("kid"), header.get("alg"), header.get("typ")
    if not isinstance(typ, str) or typ not in TYPES:
        raise InvalidToken("Not an access token")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise InvalidToken("The access token's algorithm is not allowed")
    return identifier(kid), alg


def _strings(value: object, *, single: bool = False) -> list[str]:
    if single and isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidToken("A claim must be a list of strings")
    return value
