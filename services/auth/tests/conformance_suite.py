"""What runs a module of the OpenID Foundation's conformance suite, and the modules by name."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
from sqlalchemy import text

from common.db.database import Database

from .browsing import CALLBACK, ISSUER, Browser, exchange
from .conftest import Auth, Person
from .test_sessions import bearer

CLIENT = {
    "name": "Conformance",
    "grant_types": ["authorization_code", "refresh_token"],
    "scopes": ["openid", "profile", "email", "orders:read"],
    "redirect_uris": [CALLBACK, "https://shop.example/second?dummy1=lorem&dummy2=ipsum"],
    "post_logout_redirect_uris": ["https://shop.example/bye"],
}


@dataclass
class Suite:
    """One run of a module: a client, a person and their browser."""

    auth: Auth
    database: Database
    client: dict[str, Any]
    ada: Person
    browser: Browser = field(init=False)

    def __post_init__(self) -> None:
        self.browser = Browser(self.auth)

    async def code(self, **changes: str | None) -> str:
        return await self.browser.code(self.ada, self.client["client_id"], **changes)

    async def tokens(self, **changes: str | None) -> dict[str, Any]:
        answer = await exchange(self.auth, await self.code(**changes), self.client)
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def authorize(self, **changes: str | None) -> httpx.Response:
        return await self.browser.authorize(self.client["client_id"], **changes)

    async def userinfo(self, tokens: dict[str, Any]) -> dict[str, Any]:
        answer = await self.auth.http.get("/userinfo", headers=bearer(tokens))
        assert answer.status_code == 200
        claims: dict[str, Any] = answer.json()
        return claims

    async def claims(self, tokens: dict[str, Any]) -> dict[str, Any]:
        """The ID token's, verified as the suite does."""
        kid = jwt.get_unverified_header(tokens["id_token"])["kid"]
        keys = jwt.PyJWKSet.from_dict((await self.auth.http.get("/.well-known/jwks.json")).json())
        audience = self.client["client_id"]
        claims: dict[str, Any] = jwt.decode(
            tokens["id_token"], keys[kid], algorithms=["ES256"], audience=audience, issuer=ISSUER
        )
        return claims

    async def age(self, seconds: int) -> None:
        """Lets the sign-in be older."""
        async with self.database.transaction() as session:
            await session.execute(
                text("UPDATE browser_sessions SET authenticated_at = authenticated_at - make_interval(secs => :s)"),
                {"s": seconds},
            )


Module = Callable[[Suite], Awaitable[None]]
MODULES: dict[str, Module] = {}


def module(name: str) -> Callable[[Module], Module]:
    def add(run: Module) -> Module:
        MODULES[name] = run
        return run

    return add
