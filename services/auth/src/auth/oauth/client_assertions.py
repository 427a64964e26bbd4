"""Client authentication by a signed assertion (RFC 7523 §3, `private_key_jwt` of OpenID Connect Core 1.0 §9).

Checked as strictly as access tokens are: the key that the client registered pins the algorithm, the header asks for
nothing, times are integers, and the assertion lives shortly and is good once.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from auth.errors import InvalidClient
from auth.key_sets import parse_key_set
from auth.models import Client
from auth.settings import Settings
from common.security.strict_jwt import MalformedToken, UnverifiedToken, identifier, integer, read_jwt
from common.security.verification_keys import UnusableKey

MAX_LIFETIME: Final = 300
"""Seconds from now to the assertion's `exp`, and from its `iat` where it has one."""
_LEEWAY: Final = 10
_TYPES: Final = frozenset({"jwt", "client-authentication+jwt"})
"""Of the header, where there is one: an access token is no assertion (RFC 8725 §3.11)."""


@dataclass(frozen=True, slots=True)
class AssertionUse:
    """Names an assertion, which is good once until it expires."""

    digest: bytes
    expires_at: datetime


def read_client_id(assertion: str) -> str:
    """The client that the assertion is said to be from. Raises `InvalidClient`."""
    try:
        return identifier(read_jwt(assertion).claims.get("sub"))
    except MalformedToken:
        raise InvalidClient from None


def verify_assertion(assertion: str, client: Client, settings: Settings, now: datetime) -> AssertionUse:
    """Raises `InvalidClient` unless the client signed the assertion for this server, for use now.

    The caller makes sure that it was not used before.
    """
    try:
        token = read_jwt(assertion)
        expires_at = _check_claims(token.claims, client.id, settings, int(now.timestamp()))
        keys = {key.kid: key for key in parse_key_set(client.jwks or {})}
        kid = token.header.get("kid")
        # A client with one key need not name it.
        key = next(iter(keys.values())) if kid is None and len(keys) == 1 else keys.get(identifier(kid))
    except (MalformedToken, UnusableKey):
        raise InvalidClient from None
    typ = token.header.get("typ")
    is_right_type = typ is None or (isinstance(typ, str) and typ.lower().removeprefix("application/") in _TYPES)
    if not is_right_type or key is None or not _is_signed(token, key):
        raise InvalidClient
    unique = f"{client.id}\x1f{token.claims['jti']}".encode()
    kept_until = datetime.fromtimestamp(expires_at + _LEEWAY, UTC)
    return AssertionUse(hashlib.sha256(unique).digest(), kept_until)


def _is_signed(token: UnverifiedToken, key: Any) -> bool:
    return token.header.get("alg") == key.alg and bool(key.verifies(token.signed, token.signature))


def _check_claims(claims: dict[str, Any], client_id: str, settings: Settings, now: int) -> int:
    """Returns `exp`. Raises `MalformedToken` for claims that are missing, malformed or not for this server now."""
    if claims.get("iss") != client_id or claims.get("sub") != client_id:
        raise MalformedToken
    audience = claims.get("aud")
    audience = audience[0] if isinstance(audience, list) and len(audience) == 1 else audience
    if audience not in (settings.public_url, f"{settings.public_url}/token"):
        raise MalformedToken
    identifier(claims.get("jti"))
    expires_at, begins_at = integer(claims.get("exp")), integer(claims.get("nbf", 0))
    issued_at = integer(claims.get("iat", now))
    if not now - _LEEWAY < expires_at <= min(now + _LEEWAY, issued_at) + MAX_LIFETIME:
        raise MalformedToken
    if max(issued_at, begins_at) > now + _LEEWAY:
        raise MalformedToken
    return expires_at
