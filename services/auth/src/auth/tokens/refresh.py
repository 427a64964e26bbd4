"""Refresh tokens: opaque to clients, derived so that the same rotation asked for twice has the same answer.

A token is its family's id, its place in the family, and HMAC(secret, family | place | nonce): 256 bits that need both
the secret (a file) and the family's nonce (the database). The family's row keeps the hashes of the newest two tokens;
that any older one was really issued, its HMAC proves.
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
class PresentedToken:
    """A token as a client presents it: well-formed, but not yet proven."""

    family: uuid.UUID
    place: int
    text: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()

    def is_authentic(self, secret: bytes, nonce: bytes) -> bool:
        return hmac.compare_digest(derive(secret, self.family, self.place, nonce).text, self.text)


def new_nonce() -> bytes:
    return secrets.token_bytes(NONCE_BYTES)


def derive(secret: bytes, family: uuid.UUID, place: int, nonce: bytes) -> PresentedToken:
    """The token at `place` (from 1) of a family."""
    name = family.bytes + place.to_bytes(4)
    raw = name + hmac.digest(secret, name + nonce, hashlib.sha256)
    return PresentedToken(family, place, PREFIX + base64.urlsafe_b64encode(raw).rstrip(b"=").decode())


def parse(text: str) -> PresentedToken | None:
    """None for what was never a refresh token of ours."""
    if len(text) != _LENGTH or not text.startswith(PREFIX) or not text.isascii():
        return None
    try:
        raw = base64.b64decode(text[len(PREFIX) :] + "==", altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    if len(raw) != _BYTES:
        return None
    return PresentedToken(uuid.UUID(bytes=raw[:16]), int.from_bytes(raw[16:20]), text)
