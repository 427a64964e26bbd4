"""What a token can allow: scopes (RFC 6749 §3.3) and resources (RFC 8707)."""

from collections.abc import Collection, Sequence
from typing import Final, Literal, get_args

from auth.errors import InvalidScope, InvalidTarget

PERSON_SCOPES: Final = ("account", "orders:read", "orders:write", "notifications:read", "notifications:write")
"""The scopes of a person's session in a first-party client."""

IDENTITY_SCOPES: Final = ("openid", "profile", "email")
"""OpenID Connect Core 1.0 §5.4. Granted only on request: without `openid` there is no ID token."""

ManagedScope = Literal[
    "orders:read",
    "orders:write",
    "notifications:read",
    "events:read",
    "webhooks:read",
    "webhooks:write",
    "openid",
    "profile",
    "email",
    "tokens:introspect",
    "credentials:verify",
    "links:issue",
    "revocations:read",
]
"""The scopes an administrator may give a client. The last three are for internal endpoints."""

MANAGED_SCOPES: Final[tuple[str, ...]] = get_args(ManagedScope)

DELEGABLE: Final = {
    "orders:read": "See your orders",
    "orders:write": "Place and cancel orders in your name",
    "notifications:read": "Read your notifications",
    "events:read": "Follow what happens to your orders",
    "openid": "Know that you are you when you come back",
    "profile": "Know your name",
    "email": "Know your e-mail address",
}
"""The scopes that a person can allow a client, as the consent page describes them. The others are the client's own."""


def narrow_scope(requested: str | None, granted: Sequence[str], extra: Sequence[str] = ()) -> tuple[str, ...]:
    """The scopes of a new token: the requested ones, by default all that were granted.

    Those in `extra` are allowed, but not part of the default. Raises `InvalidScope` for any other.
    """
    if requested is None:
        return tuple(granted)
    scopes = requested.split(" ")
    if not set(scopes) <= {*granted, *extra}:
        raise InvalidScope
    return tuple(scope for scope in dict.fromkeys((*granted, *extra)) if scope in scopes)


def narrow_resources(requested: Collection[str], granted: Sequence[str], extra: Sequence[str] = ()) -> tuple[str, ...]:
    """The audience of a new token: the requested resources, by default all that were granted.

    Those in `extra` are allowed, but not part of the default. Raises `InvalidTarget` for any other.
    """
    if not requested:
        return tuple(granted)
    if not set(requested) <= {*granted, *extra}:
        raise InvalidTarget
    return tuple(target for target in (*granted, *extra) if target in requested)
