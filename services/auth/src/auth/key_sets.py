"""Public keys that clients register, with which they sign assertions (RFC 7523)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from common.security.verification_keys import UnusableKey, VerificationKey, parse_jwk

MAX_KEYS: Final = 5


def parse_key_set(jwks: Mapping[str, Any]) -> Sequence[VerificationKey]:
    """The keys of a JWK set (RFC 7517 §5). Raises `UnusableKey` if one of them is, and for none or too many keys."""
    keys = jwks.get("keys")
    if not isinstance(keys, list) or not 1 <= len(keys) <= MAX_KEYS or not all(isinstance(key, dict) for key in keys):
        raise UnusableKey(f"a JWK set has 1 to {MAX_KEYS} keys")
    parsed = [parse_jwk(key) for key in keys]
    if len({key.kid for key in parsed}) != len(parsed):
        raise UnusableKey("two keys have the same kid")
    return parsed


def usable_key_set(jwks: dict[str, Any]) -> dict[str, Any]:
    """For a body: returns it, with nothing but the keys. Raises `ValueError`."""
    parse_key_set(jwks)
    return {"keys": jwks["keys"]}
