"""Secrets of OAuth clients: generated, shown once, stored as a hash."""

import hashlib
import hmac
import secrets
from typing import Final

PREFIX: Final = "wbs_"
"""Lets secret scanners recognise a leaked secret."""


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """SHA-256. A slow hash protects guessable passwords; 256 random bits need none."""
    return hashlib.sha256(secret.encode()).digest()


def is_right(secret: str | None, expected_hash: bytes) -> bool:
    return secret is not None and hmac.compare_digest(secret_hash(secret), expected_hash)
