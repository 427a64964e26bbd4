"""Tokens for tests, signed with a real key, so that the real verification runs."""

import time
import tomllib
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from common.db.database import new_id
from common.security.tokens import Denylist, TokenVerifier
from common.security.verification_keys import StaticKeys, VerificationKey, parse_jwk, thumbprint
from common.settings import resource

USER_SCOPES = "account orders:read orders:write notifications:read notifications:write"
SERVICES = tuple(tomllib.loads((Path(__file__).parents[5] / "services.toml").read_text()))


class TokenIssuer:
    """Stands in for auth: one ES256 key, `mint` for tokens, `keys` and `verifier` for those who check them."""

    def __init__(self, issuer: str = "http://gateway.test") -> None:
        self.issuer = issuer
        self._private = ec.generate_private_key(ec.SECP256R1())
        jwk = ECAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        self.key: VerificationKey = parse_jwk({**jwk, "kid": thumbprint(jwk), "alg": "ES256", "use": "sig"})
        self.keys = StaticKeys([self.key])

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [dict(self.key.jwk)]}

    def mint(
        self,
        subject: UUID | str | None = None,
        *,
        roles: tuple[str, ...] = ("user",),
        scope: str | None = USER_SCOPES,
        audience: tuple[str, ...] = SERVICES,
        lifetime: int = 300,
        headers: dict[str, Any] | None = None,
        **overrides: Any,
    ) -> str:
        """A valid token of a person, by default of a new one. `overrides` replace claims; None removes a claim."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": str(subject or new_id()),
            "aud": [resource(service) for service in audience],
            "iat": now,
            "exp": now + lifetime,
            "jti": str(new_id()),
            "client_id": "web",
            "scope": scope,
            "sid": str(new_id()),
            "sv": 1,
            "auth_time": now,
            "roles": list(roles),
        } | overrides
        return jwt.encode(
            {name: value for name, value in claims.items() if value is not None},
            self._private,
            algorithm="ES256",
            headers={"typ": "at+jwt", "kid": self.key.kid, **(headers or {})},
        )

    def mint_service(self, client_id: str, *, scope: str, **overrides: Any) -> str:
        """A service's own token (client credentials)."""
        return self.mint(client_id, roles=(), scope=scope, client_id=client_id, auth_time=None, **overrides)

    def bearer(self, subject: UUID | str | None = None, **mint: Any) -> dict[str, str]:
        """The `Authorization` header with a freshly minted token."""
        return {"Authorization": f"Bearer {self.mint(subject, **mint)}"}

    def verifier(self, service: str, *, denylist: Denylist | None = None, **options: Any) -> TokenVerifier:
        return TokenVerifier(
            issuer=self.issuer, audience=resource(service), keys=self.keys, denylist=denylist, **options
        )
