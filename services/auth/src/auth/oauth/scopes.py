"""What tokens can be good for: scopes (RFC 6749 §3.3) and resources (RFC 8707)."""

from collections.abc import Collection, Sequence
from typing import Final, Literal, get_args

from auth.errors import InvalidScope, InvalidTarget

PERSON_SCOPES: Final = ("account", "orders:read", "orders:write", "notifications:read", "notifications:write")
"""What a person's session in a first-party client may do."""

ManagedScope = Literal[
    "orders:read",
    "orders:write",
    "notifications:read",
    "events:read",
    "credentials:verify",
    "links:issue",
    "revocations:read",
]
"""What an administrator may give a client. The last three are for services' calls to each other."""

MANAGED_SCOPES: Final[tuple[str, ...]] = get_args(ManagedScope)


def narrow_scope(requested: str | None, granted: Sequence[str]) -> tuple[str, ...]:
    """The scopes of a new token: all that were granted, or those of them that are asked for.

    Raises `InvalidScope` where one is asked for that was not granted.
    """
    if requested is None:
        return tuple(granted)
    wanted = requested.split(" ")
    if not set(wanted) <= set(granted):
        raise InvalidScope
    return tuple(scope for scope in granted if scope in wanted)


def narrow_resources(requested: Collection[str], granted: Sequence[str], also: Sequence[str] = ()) -> tuple[str, ...]:
    """The audience of a new token: all that was granted, or what is asked for of that and of what may be had `also`.

    Raises `InvalidTarget`.
    """
    if not requested:
        return tuple(granted)
    if not set(requested) <= {*granted, *also}:
        raise InvalidTarget
    return tuple(target for target in (*granted, *also) if target in requested)
