"""Reads a JWT (RFC 7519) without verifying it, strictly where JWT libraries are lenient (RFC 8725).

No duplicate members, no NaN, base64url in its canonical form, and nothing in the header that asks for another key or
coding.
"""

import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Any, Final

from common.security.verification_keys import base64url

MAX_TOKEN_LENGTH: Final = 4096

# With these the sender would choose the key, or how the token is decoded (RFC 8725 §3.10, RFC 7797 §6).
_REFUSED_HEADERS: Final = frozenset({"crit", "jku", "x5u", "x5c", "jwk", "b64"})
_IDENTIFIER: Final = re.compile(r"[\x21-\x7e]{1,256}")


class MalformedToken(ValueError):
    """The text is no JWT that this module reads."""


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A JWT whose signature nobody has verified yet: `signature` is that of `signed`."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def read_jwt(token: str) -> UnverifiedToken:
    """Raises `MalformedToken`."""
    segments = token.split(".") if len(token) <= MAX_TOKEN_LENGTH and token.isascii() else []
    if len(segments) != 3:
        raise MalformedToken
    header, claims = _json_object(segments[0]), _json_object(segments[1])
    if not _REFUSED_HEADERS.isdisjoint(header):
        raise MalformedToken("The token's header asks for what is not supported")
    signed, _, signature = token.rpartition(".")
    return UnverifiedToken(header, claims, signed.encode(), _base64url_decoded(signature))


def _base64url_decoded(segment: str) -> bytes:
    """Decodes the canonical form only: no other characters and no surplus bits. Raises `MalformedToken`."""
    try:
        raw = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise MalformedToken from None
    if base64url(raw) != segment:
        raise MalformedToken
    return raw


def _json_object(segment: str) -> dict[str, Any]:
    try:
        # Decoded here because json accepts UTF-16 and UTF-32 bytes, too.
        text = _base64url_decoded(segment).decode()
        value = _STRICT_JSON.decode(text)
    except (ValueError, RecursionError):
        raise MalformedToken from None
    if not isinstance(value, dict):
        raise MalformedToken
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_STRICT_JSON: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def integer(value: object) -> int:
    """A date or number. Raises `MalformedToken`."""
    # Python counts True as an int, and some libraries accept 1e300 as a date.
    if type(value) is not int or not 0 <= value < 2**53:
        raise MalformedToken("A claim must be an integer")
    return value


def identifier(value: object) -> str:
    """Visible ASCII, at most 256 characters. Raises `MalformedToken`."""
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
        raise MalformedToken("An identifier is malformed")
    return value
