"""Encrypts secrets at rest, with a key that a file in the secrets folder holds."""

import hashlib
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES: Final = 12


class WrongKeyEncryptionKey(Exception):
    """The secret was encrypted with another key or for another context, or was altered."""


class KeyEncryption:
    """AES-256-GCM with a 32-byte key encryption key. `id` identifies that key without revealing it: store it with what
    the key has sealed.

    `context` is the associated data, which names the row and its use: a secret that is moved to another row cannot be
    decrypted.
    """

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self.id = hashlib.sha256(b"waybill kek id" + key).hexdigest()[:16]

    def seal(self, secret: bytes, *, context: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, secret, context.encode())

    def unseal(self, sealed: bytes, *, context: str, kek_id: str | None) -> bytes:
        """`kek_id` is the id of the key that sealed it. Raises `WrongKeyEncryptionKey`."""
        if kek_id != self.id:
            raise WrongKeyEncryptionKey(f"{context} is encrypted with {kek_id}, but the configured key is {self.id}")
        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except InvalidTag:
            raise WrongKeyEncryptionKey(f"{context} cannot be decrypted") from None
