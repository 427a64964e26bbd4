"""What an access token says (RFC 9068 §2.2)."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from common.db.database import new_id


@dataclass(frozen=True, slots=True)
class Grant:
    """The right that one access token stands for."""

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


def claims(grant: Grant, *, issuer: str, now: datetime, lifetime: timedelta) -> dict[str, Any]:
    """No personal data among them. `auth_time` is left out where nobody authenticated but a client."""
    issued_at = int(now.timestamp())
    said: dict[str, Any] = {
        "iss": issuer,
        "sub": grant.subject,
        "aud": list(grant.resources),
        "exp": issued_at + int(lifetime.total_seconds()),
        "iat": issued_at,
        "jti": str(new_id()),
        "client_id": grant.client_id,
        "scope": grant.scope,
        "sid": str(grant.session_id),
        "sv": grant.session_version,
        "roles": list(grant.roles),
    }
    if grant.authenticated_at is not None:
        said["auth_time"] = int(grant.authenticated_at.timestamp())
    return said
