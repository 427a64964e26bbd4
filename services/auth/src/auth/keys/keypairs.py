"""Generates the issuer's key pairs, and encrypts the private parts at rest."""

import json
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from auth.models import KeyStatus, SigningKey
from common.security.sealing import KeyEncryption, WrongKeyEncryptionKey
from common.security.verification_keys import thumbprint

PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey

_RSA_BITS: Final = 3072


def seal(encryption: KeyEncryption, private: PrivateKey, kid: str, alg: str) -> bytes:
    jwk = _algorithm(alg).to_jwk(private, as_dict=True)
    return encryption.seal(json.dumps(jwk).encode(), context=_context(kid, alg))


def unseal(encryption: KeyEncryption, key: SigningKey) -> PrivateKey:
    """Raises `WrongKeyEncryptionKey`."""
    text = encryption.unseal(key.sealed or b"", context=_context(key.kid, key.alg), kek_id=key.kek_id)
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
        sealed=seal(encryption, private, kid, alg),
        kek_id=encryption.id,
        created_at=now,
        changes_at=changes_at,
        version=1,
    )


def _algorithm(alg: str) -> Any:
    return RSAAlgorithm if alg == "RS256" else ECAlgorithm


def _context(kid: str, alg: str) -> str:
    return f"{kid}|{alg}"
