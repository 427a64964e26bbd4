"""Who may call a route: FastAPI dependencies that turn a bearer token (RFC 6750) into a principal.

A guard runs before the body is read (`common.web` looks for `is_guard`) and again as the dependency that
hands the principal to the route; the second time it answers from the request's state. It reads the verifier
from the lifespan state's `tokens`.
"""

from typing import ClassVar, Final

from fastapi import Request

from common.errors import Forbidden, Unauthorized
from common.security.tokens import NOT_ENOUGH, InvalidToken, Principal, TokenVerifier


class InsufficientScope(Forbidden):
    """The token is valid but was not granted what this needs (RFC 6750 §3.1)."""

    code, title = "insufficient_scope", "Access token lacks a scope"


class Guard:
    """Lets a request through whose token is valid and has all of `scopes` and, if any are named, one of `roles`.

    Raises `Unauthorized` (401) without a token, `InvalidToken` (401), `InsufficientScope` or `Forbidden` (403),
    `Unavailable` (503) while there are no keys to verify with.
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
            # Also where the request log finds subject and client.
            request.state.principal = principal
        if not principal.scopes.issuperset(self.scopes):
            needed = " ".join(self.scopes)
            raise InsufficientScope(
                f"This needs the scope {needed}",
                headers={"WWW-Authenticate": f'{NOT_ENOUGH}, scope="{needed}"'},
            )
        if self.roles and principal.roles.isdisjoint(self.roles):
            raise Forbidden("This needs another role", headers={"WWW-Authenticate": NOT_ENOUGH})
        return principal


def bearer_token(request: Request) -> str:
    """The request's one bearer token, from the `Authorization` header only (RFC 6750 §2.1)."""
    sent = request.headers.getlist("authorization")
    if len(sent) > 1:
        # 401, not 400: which of the two another party went by is unknown, so nobody is authenticated.
        raise Unauthorized(
            "More than one Authorization header", headers={"WWW-Authenticate": 'Bearer error="invalid_request"'}
        )
    scheme, _, token = (sent[0] if sent else "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("This needs a bearer token", headers={"WWW-Authenticate": "Bearer"})
    if not token.strip(" "):
        raise InvalidToken("The bearer token is empty")
    return token.strip(" ")


authenticate: Final = Guard()
"""Any valid token."""


def require_roles(*roles: str) -> Guard:
    """A guard for people with at least one of `roles`."""
    return Guard(roles=roles)


def require_scopes(*scopes: str) -> Guard:
    """A guard for tokens with all of `scopes`."""
    return Guard(scopes=scopes)
