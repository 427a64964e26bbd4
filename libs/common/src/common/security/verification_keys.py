"""Public keys that verify access tokens: parsed from JWK (RFC 7517), each pinned to one algorithm."""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

_ES256: Final = ECAlgorithm(ECAlgorithm.SHA256)
_RS256: Final = RSAAlgorithm(RSAAlgorithm.SHA256)
_RSA_BITS: Final = range(2048, 8193)  # RFC 7518 §3.3 sets the minimum; verification gets costly above the maximum
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class UnusableKey(ValueError):
    """The JWK is not a public signature key of an allowed algorithm."""


@dataclass(frozen=True, slots=True, eq=False)
class VerificationKey:
    """A public key and the one algorithm it may be used with (RFC 8725 §3.1)."""

    kid: str
    alg: str
    jwk: Mapping[str, Any]
    public: EllipticCurvePublicKey | RSAPublicKey

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        if isinstance(self.public, RSAPublicKey):
            return _RS256.verify(signed, self.public, signature)
        return _ES256.verify(signed, self.public, signature)


class KeySource(Protocol):
    """Supplies a verifier with keys."""

    def cached(self, kid: str) -> VerificationKey | None:
        """The key, if it is cached and still trusted. Does no I/O."""
        ...

    async def find(self, kid: str) -> VerificationKey | None:
        """The key, fetched where necessary. None where the issuer has no key with this id.

        Raises `common.errors.Unavailable` until some keys are known.
        """
        ...


class StaticKeys:
    """A fixed set of keys, for tests."""

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self._keys = {key.kid: key for key in keys}

    def cached(self, kid: str) -> VerificationKey | None:
        return self._keys.get(kid)

    async def find(self, kid: str) -> VerificationKey | None:
        return self._keys.get(kid)


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """The JWK's SHA-256 thumbprint, base64url (RFC 7638 §3)."""
    members = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("e", "kty", "n")
    canonical = json.dumps({name: jwk[name] for name in members}, separators=(",", ":"), sort_keys=True)
    return base64url(hashlib.sha256(canonical.encode()).digest())


def base64url(raw: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def parse_jwk(jwk: Mapping[str, Any]) -> VerificationKey:
    """Parses a public JWK. Raises `UnusableKey` for anything but ES256 on P-256 and RS256 with 2048 bits or more.

    A key with private members is refused, not just stripped of them: its private half is public now.
    """
    kid, use, operations = jwk.get("kid"), jwk.get("use", "sig"), jwk.get("key_ops", ["verify"])
    if not isinstance(kid, str) or not 0 < len(kid) <= 256:
        raise UnusableKey("no usable kid")
    if use != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKey("not for verifying signatures")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise UnusableKey("private or symmetric")
    alg, public = _public_key(dict(jwk))
    if jwk.get("alg", alg) != alg:
        raise UnusableKey("algorithm does not fit the key")
    return VerificationKey(kid=kid, alg=alg, jwk=dict(jwk), public=public)


def _public_key(jwk: dict[str, Any]) -> tuple[str, EllipticCurvePublicKey | RSAPublicKey]:
    try:
        if (jwk.get("kty"), jwk.get("crv")) == ("EC", "P-256"):
            point = ECAlgorithm.from_jwk(jwk)
            if isinstance(point, EllipticCurvePublicKey):
                return "ES256", point
        if jwk.get("kty") == "RSA":
            modulus = RSAAlgorithm.from_jwk(jwk)
            if isinstance(modulus, RSAPublicKey) and modulus.key_size in _RSA_BITS:
                return "RS256", modulus
    except (InvalidKeyError, ValueError, TypeError, KeyError) as error:
        raise UnusableKey("malformed") from error
    raise UnusableKey("type, curve or size not allowed")
