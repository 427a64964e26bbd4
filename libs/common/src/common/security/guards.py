"""FastAPI dependencies that decide who may call a route: they turn a bearer token (RFC 6750) into a principal.

`common.web.route` runs a guard before it reads the body. FastAPI calls it again where a parameter needs the principal,
and then it returns the one in `request.state`. The verifier is `tokens` in the lifespan's state.
"""

import time
from typing import ClassVar, Final

from fastapi import Request

from common.errors import Forbidden, Unauthorized
from common.security.tokens import INSUFFICIENT_SCOPE, InvalidToken, Principal, TokenVerifier

RECENT_SIGN_IN: Final = 300
"""Seconds since the sign-in within which a person may change how they sign in, or delete what cannot be restored."""


class InsufficientScope(Forbidden):
    """The token is valid but lacks a scope (RFC 6750 §3.1)."""

    code, title = "insufficient_scope", "Access token lacks a scope"


class InsufficientUserAuthentication(Unauthorized):
    """The person signed in too long ago for this request (RFC 9470 §3): they sign in again, and then repeat it."""

    code, title = "insufficient_user_authentication", "This needs a recent sign-in"

    def __init__(self, max_age: int) -> None:
        """`max_age` is in seconds."""
        challenge = f'Bearer error="{self.code}", max_age="{max_age}"'
        detail = f"Sign in again: this needs a sign-in of the last {max_age} seconds."
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class Guard:
    """Admits a request whose token is valid, has all of `scopes` and, where `roles` are given, one of them. With
    `max_age`, the person must have signed in at most so many seconds ago: a refreshed token keeps its `auth_time`.

    A token with which a client of others acts for a person has neither a role's rights nor those of routes without a
    scope, unless `any_client` says that the route shows nothing of a person's.

    Raises `Unauthorized` (401) without a token, `InvalidToken` (401), `InsufficientScope` or `Forbidden` (403),
    `InsufficientUserAuthentication` (401), and `Unavailable` (503) while no keys are known.
    """

    is_guard: ClassVar[bool] = True

    def __init__(
        self,
        *,
        scopes: tuple[str, ...] = (),
        roles: tuple[str, ...] = (),
        max_age: int | None = None,
        any_client: bool = False,
    ) -> None:
        self.scopes = scopes
        self.roles = roles
        self.max_age = max_age
        self.any_client = any_client

    async def __call__(self, request: Request) -> Principal:
        principal = getattr(request.state, "principal", None)
        if not isinstance(principal, Principal):
            verifier: TokenVerifier = request.state.tokens
            principal = await verifier.verify(bearer_token(request))
            # The request log reads subject and client from here, too.
            request.state.principal = principal
        if not principal.scopes.issuperset(self.scopes):
            required = " ".join(self.scopes)
            raise InsufficientScope(
                f"This needs the scope {required}",
                headers={"WWW-Authenticate": f'{INSUFFICIENT_SCOPE}, scope="{required}"'},
            )
        if principal.is_delegated and not (self.scopes or self.any_client):
            raise InsufficientScope("This is not for other clients", headers={"WWW-Authenticate": INSUFFICIENT_SCOPE})
        if self.roles and (principal.is_delegated or principal.roles.isdisjoint(self.roles)):
            raise Forbidden("This needs another role", headers={"WWW-Authenticate": INSUFFICIENT_SCOPE})
        if self.max_age is not None:
            check_recent_sign_in(principal, self.max_age)
        return principal


def check_recent_sign_in(principal: Principal, max_age: int = RECENT_SIGN_IN) -> None:
    """For routes that need a recent sign-in for some bodies only. Raises `InsufficientUserAuthentication`."""
    if principal.auth_time is None or time.time() - principal.auth_time > max_age:
        raise InsufficientUserAuthentication(max_age)


def bearer_token(request: Request) -> str:
    """The bearer token of the `Authorization` header (RFC 6750 §2.1). Raises `Unauthorized`, `InvalidToken`."""
    headers = request.headers.getlist("authorization")
    if len(headers) > 1:
        # 401, not 400: a proxy may have trusted either of the two, so neither authenticates the caller.
        raise Unauthorized(
            "More than one Authorization header", headers={"WWW-Authenticate": 'Bearer error="invalid_request"'}
        )
    scheme, _, token = (headers[0] if headers else "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("This needs a bearer token", headers={"WWW-Authenticate": "Bearer"})
    if not token.strip(" "):
        raise InvalidToken("The bearer token is empty")
    return token.strip(" ")


authenticate: Final = Guard()
"""Admits any valid token but a delegated one."""
recent_sign_in: Final = Guard(max_age=RECENT_SIGN_IN)
"""Admits a person's token whose sign-in is recent. List it after the guard that checks scopes and roles."""


def require_scopes(*scopes: str) -> Guard:
    """A guard that admits tokens with all of `scopes`."""
    return Guard(scopes=scopes)
