"""What a token can allow: scopes (RFC 6749 §3.3) and resources (RFC 8707)."""

from collections.abc import Collection, Sequence
from typing import Final, Literal, get_args

from auth.errors import InvalidScope, InvalidTarget

PERSON_SCOPES: Final = ("account", "orders:read", "orders:write", "notifications:read", "notifications:write")
"""The scopes of a person's session in a first-party client."""

ManagedScope = Literal[
    "orders:read",
    "orders:write",
    "notifications:read",
    "events:read",
    "credentials:verify",
    "links:issue",
    "revocations:read",
]
"""The scopes an administrator may give a client. The last three are for internal endpoints."""

MANAGED_SCOPES: Final[tuple[str, ...]] = get_args(ManagedScope)


def narrow_scope(requested: str | None, granted: Sequence[str]) -> tuple[str, ...]:
    """The scopes of a new token: the requested ones, by default all that were granted.

    Raises `InvalidScope` for a scope that was not granted.
    """
    if requested is None:
        return tuple(granted)
    scopes = requested.split(" ")
    if not set(scopes) <= set(granted):
        raise InvalidScope
    return tuple(scope for scope in granted if scope in scopes)


def narrow_resources(requested: Collection[str], granted: Sequence[str], extra: Sequence[str] = ()) -> tuple[str, ...]:
    """The audience of a new token: the requested resources, by default all that were granted.

    Those in `extra` are allowed, but not part of the default. Raises `InvalidTarget` for any other.
    """
    if not requested:
        return tuple(granted)
    if not set(requested) <= {*granted, *extra}:
        raise InvalidTarget
    return tuple(target for target in (*granted, *extra) if target in requested)
