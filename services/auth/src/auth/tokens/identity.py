"""ID tokens (OpenID Connect Core 1.0 §2): who signed in, when and how, for the client alone."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from common.security.verification_keys import base64url

TYPE: Final = "JWT"
"""Never `at+jwt`: no service accepts an ID token in place of an access token."""


@dataclass(frozen=True, slots=True)
class IdentityContent:
    subject: uuid.UUID
    client_id: str
    session_id: uuid.UUID
    authenticated_at: datetime
    amr: Sequence[str]
    nonce: str | None


def identity_claims(
    content: IdentityContent, *, access_token: str, issuer: str, now: datetime, lifetime: timedelta
) -> dict[str, Any]:
    """The token's payload. Name and address are at `/userinfo`."""
    issued_at = int(now.timestamp())
    payload: dict[str, Any] = {
        "iss": issuer,
        "sub": str(content.subject),
        "aud": content.client_id,
        "exp": issued_at + int(lifetime.total_seconds()),
        "iat": issued_at,
        "auth_time": int(content.authenticated_at.timestamp()),
        "sid": str(content.session_id),
        "amr": list(content.amr),
        "at_hash": half_hash(access_token),
    }
    if content.nonce is not None:
        payload["nonce"] = content.nonce
    return payload


def half_hash(text: str) -> str:
    """Ties the access token to the ID token (§3.1.3.6): the left half of its SHA-256."""
    return base64url(hashlib.sha256(text.encode("ascii")).digest()[:16])
