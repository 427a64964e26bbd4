"""FastAPI dependencies that decide who may call a route: they turn a bearer token (RFC 6750) into a principal.

`common.web.route` runs a guard before it reads the body. FastAPI calls it again where a parameter needs the principal,
and then it returns the one in `request.state`. The verifier is `tokens` in the lifespan's state.
"""

from typing import ClassVar, Final

from fastapi import Request

from common.errors import Forbidden, Unauthorized
from common.security.tokens import INSUFFICIENT_SCOPE, InvalidToken, Principal, TokenVerifier


class InsufficientScope(Forbidden):
    """The token is valid but lacks a scope (RFC 6750 §3.1)."""

    code, title = "insufficient_scope", "Access token lacks a scope"


class Guard:
    """Admits a request whose token is valid, has all of `scopes` and, where `roles` are given, one of them.

    Raises `Unauthorized` (401) without a token, `InvalidToken` (401), `InsufficientScope` or `Forbidden` (403), and
    `Unavailable` (503) while no keys are known.
    """

    is_guard: ClassVar[bool] = True

    def __init__(self, *, scopes: tuple[str, ...] = (), roles: tuple[str, ...] = ()) -> None:
        self.scopes = scopes
        self.roles = roles

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
        if self.roles and principal.roles.isdisjoint(self.roles):
            raise Forbidden("This needs another role", headers={"WWW-Authenticate": INSUFFICIENT_SCOPE})
        return principal


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
"""Admits any valid token."""


def require_scopes(*scopes: str) -> Guard:
    """A guard that admits tokens with all of `scopes`."""
    return Guard(scopes=scopes)
