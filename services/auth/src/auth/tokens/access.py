"""The claims of an access token (RFC 9068 §2.2)."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from common.db.database import new_id


@dataclass(frozen=True, slots=True)
class AccessTokenContent:
    """What one access token allows, and to whom. `authenticated_at` is None for a client's own token."""

    subject: str
    client_id: str
    scopes: Sequence[str]
    resources: Sequence[str]
    session_id: uuid.UUID
    session_version: int
    roles: Sequence[str] = ()
    authenticated_at: datetime | None = None

    @property
    def scope(self) -> str:
        return " ".join(self.scopes)


def claims(content: AccessTokenContent, *, issuer: str, now: datetime, lifetime: timedelta) -> dict[str, Any]:
    """The token's payload. It holds no personal data."""
    issued_at = int(now.timestamp())
    payload: dict[str, Any] = {
        "iss": issuer,
        "sub": content.subject,
        "aud": list(content.resources),
        "exp": issued_at + int(lifetime.total_seconds()),
        "iat": issued_at,
        "jti": str(new_id()),
        "client_id": content.client_id,
        "scope": content.scope,
        "sid": str(content.session_id),
        "sv": content.session_version,
        "roles": list(content.roles),
    }
    if content.authenticated_at is not None:
        payload["auth_time"] = int(content.authenticated_at.timestamp())
    return payload
