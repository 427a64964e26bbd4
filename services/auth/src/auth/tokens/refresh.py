"""Refresh tokens: opaque to clients, and derived, so that a repeated rotation returns the same token.

A token holds its family's id (the session's), its generation (1 for the first token, one more with each rotation), and
HMAC(secret, family | generation | nonce): 256 bits that cannot be computed without both the secret (a file) and the
family's nonce (in the database). The database keeps the hashes of the newest two tokens only. For an older token the
HMAC proves that it was issued.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import uuid
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "wbr_"
"""Lets secret scanners recognise a leaked token."""
NONCE_BYTES: Final = 32
_BYTES: Final = 16 + 4 + 32
_LENGTH: Final = len(PREFIX) + 70


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A well-formed token. One that a client presents is not yet known to be authentic."""

    family: uuid.UUID
    generation: int
    text: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()

    def is_authentic(self, secret: bytes, nonce: bytes) -> bool:
        return hmac.compare_digest(derive(secret, self.family, self.generation, nonce).text, self.text)


def new_nonce() -> bytes:
    return secrets.token_bytes(NONCE_BYTES)


def derive(secret: bytes, family: uuid.UUID, generation: int, nonce: bytes) -> RefreshToken:
    """The token of this generation (from 1) of a family."""
    identity = family.bytes + generation.to_bytes(4)
    raw = identity + hmac.digest(secret, identity + nonce, hashlib.sha256)
    return RefreshToken(family, generation, PREFIX + base64.urlsafe_b64encode(raw).rstrip(b"=").decode())


def parse(text: str) -> RefreshToken | None:
    """None if the text does not have the form of a refresh token."""
    if len(text) != _LENGTH or not text.startswith(PREFIX) or not text.isascii():
        return None
    try:
        raw = base64.b64decode(text[len(PREFIX) :] + "==", altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    if len(raw) != _BYTES:
        return None
    return RefreshToken(uuid.UUID(bytes=raw[:16]), int.from_bytes(raw[16:20]), text)
