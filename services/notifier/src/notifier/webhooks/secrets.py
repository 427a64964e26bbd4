"""Secrets of webhooks and what is signed with them (Standard Webhooks 1.0, https://www.standardwebhooks.com).

A secret is shown once, to who made the webhook; at rest it is encrypted under a key from the secrets folder.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32
_NONCE_BYTES: Final = 12


def new_secret() -> bytes:
    return secrets.token_bytes(_SECRET_BYTES)


def as_text(secret: bytes) -> str:
    return _PREFIX + base64.b64encode(secret).decode()


def signed_headers(message_id: UUID, seconds: int, body: bytes, keys: Iterable[bytes]) -> dict[str, str]:
    """`seconds` is the time of this attempt, since 1970. One signature for each secret that is valid."""
    signed = f"{message_id}.{seconds}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return {
        "webhook-id": str(message_id),
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


class SecretBox:
    """AES-256-GCM, bound to the webhook: a secret moved to another row can't be read there."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, secret: bytes, webhook_id: UUID) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, secret, webhook_id.bytes)

    def unseal(self, sealed: bytes, webhook_id: UUID) -> bytes:
        """Raises `cryptography.exceptions.InvalidTag` for another key or another webhook."""
        return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], webhook_id.bytes)
