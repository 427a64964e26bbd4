"""Webhook secrets and signatures (Standard Webhooks 1.0, https://www.standardwebhooks.com).

A secret is shown once, to the owner of the webhook. At rest it is encrypted with a key from the secrets folder.
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


def encode_secret(secret: bytes) -> str:
    return _PREFIX + base64.b64encode(secret).decode()


def signed_headers(message_id: UUID, seconds: int, body: bytes, keys: Iterable[bytes]) -> dict[str, str]:
    """`seconds` is the Unix time of this attempt. There is one signature per key in `keys`."""
    signed = f"{message_id}.{seconds}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return {
        "webhook-id": str(message_id),
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


class SecretBox:
    """Encrypts secrets with AES-256-GCM, bound to the webhook's id: a copy in another row can't be decrypted."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, secret: bytes, webhook_id: UUID) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, secret, webhook_id.bytes)

    def unseal(self, sealed: bytes, webhook_id: UUID) -> bytes:
        """Raises `cryptography.exceptions.InvalidTag` if the key or the webhook is another one."""
        return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], webhook_id.bytes)
