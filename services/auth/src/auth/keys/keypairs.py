"""Key pairs of the issuer: making them, and keeping the private part encrypted at rest."""

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
    """The private part was encrypted under another key, or was tampered with."""


class KeyEncryption:
    """AES-256-GCM under the key from the secrets folder. `id` names that key without telling anything of it."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self.id = hashlib.sha256(b"waybill kek id" + key).hexdigest()[:16]

    def seal(self, private: PrivateKey, kid: str, alg: str) -> bytes:
        jwk = _algorithm(alg).to_jwk(private, as_dict=True)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, json.dumps(jwk).encode(), _bound_to(kid, alg))

    def unseal(self, key: SigningKey) -> PrivateKey:
        """Raises `WrongKeyEncryptionKey`."""
        sealed = key.sealed or b""
        if key.kek_id != self.id:
            raise WrongKeyEncryptionKey(f"key {key.kid} was encrypted under {key.kek_id}, this one is {self.id}")
        try:
            text = self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound_to(key.kid, key.alg))
        except InvalidTag:
            raise WrongKeyEncryptionKey(f"key {key.kid} cannot be decrypted") from None
        private = _algorithm(key.alg).from_jwk(text.decode())
        if not isinstance(private, PrivateKey):
            raise WrongKeyEncryptionKey(f"key {key.kid} holds no private key")
        return private


def generate(
    encryption: KeyEncryption, alg: str, *, status: KeyStatus, now: datetime, changes_at: datetime
) -> SigningKey:
    """A new key pair; `kid` is the public key's thumbprint (RFC 7638)."""
    private: PrivateKey
    if alg == "RS256":
        private = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    public: dict[str, Any] = dict(_algorithm(alg).to_jwk(private.public_key(), as_dict=True))
    public.pop("key_ops", None)  # RFC 7517 §4.3: not together with "use"
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


def _bound_to(kid: str, alg: str) -> bytes:
    # As associated data: a private part moved to another row does not decrypt.
    return f"{kid}|{alg}".encode()
