"""Generates the issuer's key pairs, and encrypts the private parts at rest."""

import hashlib
import json
import secrets
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from auth.models import KeyStatus, SigningKey
from common.security.verification_keys import thumbprint

PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey

_NONCE_BYTES: Final = 12
_RSA_BITS: Final = 3072


class WrongKeyEncryptionKey(Exception):
    """The private part was encrypted with another key, or was altered."""


class KeyEncryption:
    """AES-256-GCM with the 32-byte key encryption key. `id` identifies that key without revealing it."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self.id = hashlib.sha256(b"waybill kek id" + key).hexdigest()[:16]

    def seal(self, private: PrivateKey, kid: str, alg: str) -> bytes:
        jwk = _algorithm(alg).to_jwk(private, as_dict=True)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, json.dumps(jwk).encode(), _associated_data(kid, alg))

    def unseal(self, key: SigningKey) -> PrivateKey:
        """Raises `WrongKeyEncryptionKey`."""
        sealed = key.sealed or b""
        if key.kek_id != self.id:
            raise WrongKeyEncryptionKey(
                f"key {key.kid} is encrypted with {key.kek_id}, but the configured key is {self.id}"
            )
        try:
            text = self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _associated_data(key.kid, key.alg))
        except InvalidTag:
            raise WrongKeyEncryptionKey(f"key {key.kid} cannot be decrypted") from None
        private = _algorithm(key.alg).from_jwk(text.decode())
        if not isinstance(private, PrivateKey):
            raise WrongKeyEncryptionKey(f"key {key.kid} holds no private key")
        return private


def generate(
    encryption: KeyEncryption, alg: str, *, status: KeyStatus, now: datetime, changes_at: datetime
) -> SigningKey:
    """A new key pair. `kid` is the thumbprint of the public key (RFC 7638)."""
    private: PrivateKey
    if alg == "RS256":
        private = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    public: dict[str, Any] = dict(_algorithm(alg).to_jwk(private.public_key(), as_dict=True))
    public.pop("key_ops", None)  # RFC 7517 §4.3: use "use" or "key_ops", not both
    kid = thumbprint(public)
    return SigningKey(
        kid=kid,
        alg=alg,
        status=status,
        jwk={**public, "kid": kid, "alg": alg, "use": "sig"},
        sealed=encryption.seal(private, kid, alg),
        kek_id=encryption.id,
        created_at=now,
        changes_at=changes_at,
        version=1,
    )


def _algorithm(alg: str) -> Any:
    return RSAAlgorithm if alg == "RS256" else ECAlgorithm


def _associated_data(kid: str, alg: str) -> bytes:
    # Associated data: a private part that is moved to another row cannot be decrypted.
    return f"{kid}|{alg}".encode()
