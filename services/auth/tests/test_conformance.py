"""Modules of the OpenID Foundation's conformance suite (plan `oidcc-basic-certification-test-plan`), by their names.

Each is what the suite's module of that name does and expects, with PKCE added to every request, because we require it.
What we answer otherwise than the suite would like is in `test_what_is_not_supported_is_refused_as_specified`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy import text

from common.db.database import Database

from .browsing import CALLBACK, ISSUER, Browser, Forms, exchange, sent
from .conftest import Auth, Person, Users
from .test_clients import Register, admin, register
from .test_sessions import bearer

__all__ = ["admin", "register"]

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


@module("oidcc-server")
async def _(suite: Suite) -> None:
    tokens = await suite.tokens()
    claims = await suite.claims(tokens)
    assert claims["nonce"] == "n1"
    assert claims["sub"] == (await suite.userinfo(tokens))["sub"]


@module("oidcc-response-type-missing")
async def _(suite: Suite) -> None:
    assert sent(await suite.authorize(response_type=None))["error"] == "invalid_request"


@module("oidcc-userinfo-get")
async def _(suite: Suite) -> None:
    claims = await suite.userinfo(await suite.tokens())
    assert claims == {"sub": str(suite.ada.user_id), "name": "Ada", "email": "ada@example.com", "email_verified": True}


@module("oidcc-userinfo-post-header")
async def _(suite: Suite) -> None:
    tokens = await suite.tokens()
    assert (await suite.auth.http.post("/userinfo", headers=bearer(tokens))).json() == await suite.userinfo(tokens)


@module("oidcc-userinfo-post-body")
async def _(suite: Suite) -> None:
    tokens = await suite.tokens()
    answer = await suite.auth.http.post("/userinfo", data={"access_token": tokens["access_token"]})
    assert answer.json() == await suite.userinfo(tokens)
    assert (await suite.auth.http.post("/userinfo", data={"access_token": "x"})).status_code == 401
    assert (await suite.auth.http.post("/userinfo", data={"a": "b"})).status_code == 401


@module("oidcc-ensure-request-without-nonce-succeeds-for-code-flow")
async def _(suite: Suite) -> None:
    assert "nonce" not in await suite.claims(await suite.tokens(nonce=None))


@module("oidcc-scope-profile")
async def _(suite: Suite) -> None:
    assert (await suite.userinfo(await suite.tokens(scope="openid profile"))).keys() == {"sub", "name"}


@module("oidcc-scope-email")
async def _(suite: Suite) -> None:
    assert (await suite.userinfo(await suite.tokens(scope="openid email"))).keys() == {
        "sub",
        "email",
        "email_verified",
    }


@module("oidcc-ensure-other-scope-order-succeeds")
async def _(suite: Suite) -> None:
    assert "id_token" in await suite.tokens(scope="email openid")


@module("oidcc-display-page")
async def _(suite: Suite) -> None:
    assert "id_token" in await suite.tokens(display="page")


@module("oidcc-display-popup")
async def _(suite: Suite) -> None:
    assert "id_token" in await suite.tokens(display="popup")


@module("oidcc-prompt-login")
async def _(suite: Suite) -> None:
    first = await suite.claims(await suite.tokens())
    await suite.age(100)
    assert Forms((await suite.authorize(prompt="login")).text).action == "/sign-in"
    second = await suite.claims(await suite.tokens(prompt="login"))
    assert second["auth_time"] >= first["auth_time"]
    assert second["sub"] == first["sub"]


@module("oidcc-prompt-none-not-logged-in")
async def _(suite: Suite) -> None:
    answer = sent(await suite.authorize(prompt="none"))
    assert (answer["error"], answer["state"]) == ("login_required", "s1")


@module("oidcc-prompt-none-logged-in")
async def _(suite: Suite) -> None:
    assert sent(await suite.authorize(prompt="none"))["error"] == "login_required"
    first = await suite.claims(await suite.tokens())
    code = sent(await suite.authorize(prompt="none"))["code"]
    second = await suite.claims((await exchange(suite.auth, code, suite.client)).json())
    assert (first["sub"], first["auth_time"]) == (second["sub"], second["auth_time"])


@module("oidcc-max-age-1")
async def _(suite: Suite) -> None:
    first = await suite.claims(await suite.tokens(max_age="15000"))
    await suite.age(2)
    assert Forms((await suite.authorize(max_age="1")).text).action == "/sign-in"
    assert sent(await suite.authorize(max_age="1", prompt="none"))["error"] == "login_required"
    second = await suite.claims(await suite.tokens(max_age="1"))
    assert second["auth_time"] >= first["auth_time"]
    assert second["iat"] - second["auth_time"] <= 1


@module("oidcc-max-age-10000")
async def _(suite: Suite) -> None:
    first = await suite.claims(await suite.tokens())
    code = sent(await suite.authorize(max_age="10000", prompt="none"))["code"]
    second = await suite.claims((await exchange(suite.auth, code, suite.client)).json())
    assert first["auth_time"] == second["auth_time"]


@module("oidcc-ensure-request-with-unknown-parameter-succeeds")
async def _(suite: Suite) -> None:
    assert "id_token" in await suite.tokens(extra="foobar")


@module("oidcc-id-token-hint")
async def _(suite: Suite) -> None:
    tokens = await suite.tokens()
    code = sent(await suite.authorize(prompt="none", id_token_hint=tokens["id_token"]))["code"]
    second = await suite.claims((await exchange(suite.auth, code, suite.client)).json())
    assert second["sub"] == str(suite.ada.user_id)
    bob = suite.auth.users.add("bob@example.com")
    other = Browser(suite.auth)
    await other.code(bob, suite.client["client_id"])
    hinted = {"id_token_hint": tokens["id_token"]}
    refused = await other.authorize(suite.client["client_id"], prompt="none", **hinted)
    assert sent(refused)["error"] == "login_required"
    page = await other.authorize(suite.client["client_id"], **hinted)
    assert sent(await other.sign_in(page, bob))["error"] == "login_required"
    page = await other.authorize(suite.client["client_id"], **hinted)
    assert "code" in sent(await other.sign_in(page, suite.ada))


@module("oidcc-login-hint")
async def _(suite: Suite) -> None:
    page = await suite.authorize(login_hint="ada@example.com")
    assert Forms(page.text).fields["username"] == "ada@example.com"
    assert "code" in sent(await suite.browser.submit(await suite.browser.sign_in(page, suite.ada), decision="allow"))


@module("oidcc-ui-locales")
async def _(suite: Suite) -> None:
    assert "id_token" in await suite.tokens(ui_locales="se")


@module("oidcc-claims-locales")
async def _(suite: Suite) -> None:
    assert "id_token" in await suite.tokens(claims_locales="se")


@module("oidcc-ensure-request-with-acr-values-succeeds")
async def _(suite: Suite) -> None:
    assert "id_token" in await suite.tokens(acr_values="1 2")


@module("oidcc-codereuse")
async def _(suite: Suite) -> None:
    code = await suite.code()
    tokens = (await exchange(suite.auth, code, suite.client)).json()
    again = await exchange(suite.auth, code, suite.client)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert (await suite.auth.http.get("/userinfo", headers=bearer(tokens))).status_code == 401


@module("oidcc-ensure-registered-redirect-uri")
async def _(suite: Suite) -> None:
    answer = await suite.authorize(redirect_uri="https://shop.example/signed-in/x")
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "text/html; charset=utf-8")


@module("oidcc-redirect-uri-query-OK")
async def _(suite: Suite) -> None:
    uri = "https://shop.example/second?dummy1=lorem&dummy2=ipsum"
    page = await suite.browser.sign_in(await suite.authorize(redirect_uri=uri), suite.ada)
    answer = await suite.browser.submit(page, decision="allow")
    assert answer.headers["Location"].startswith(f"{uri}&code=")
    assert sent(answer).keys() == {"dummy1", "dummy2", "code", "state", "iss"}


@module("oidcc-redirect-uri-query-mismatch")
async def _(suite: Suite) -> None:
    assert (await suite.authorize(redirect_uri=f"{CALLBACK}?foo=bar")).status_code == 400
    assert (await suite.authorize(redirect_uri="https://shop.example/second?dummy1=x&dummy2=ipsum")).status_code == 400


@module("oidcc-ensure-redirect-uri-in-authorization-request")
async def _(suite: Suite) -> None:
    assert (await suite.authorize(redirect_uri=None)).status_code == 400


@module("oidcc-ensure-post-request-succeeds")
async def _(suite: Suite) -> None:
    answer = await suite.browser.http.post(
        "/authorize",
        data={
            "response_type": "code",
            "client_id": suite.client["client_id"],
            "redirect_uri": CALLBACK,
            "scope": "openid",
            "state": "s2",
            "code_challenge": "a" * 43,
            "code_challenge_method": "S256",
        },
    )
    page = await suite.browser.sign_in(await suite.browser.follow(answer), suite.ada)
    assert sent(await suite.browser.submit(page, decision="allow"))["state"] == "s2"


@module("oidcc-server-client-secret-post")
async def _(suite: Suite) -> None:
    code, secret = await suite.code(), suite.client["client_secret"]
    answer = await exchange(suite.auth, code, suite.client["client_id"], client_secret=secret)
    assert "id_token" in answer.json()


@module("oidcc-refresh-token")
async def _(suite: Suite) -> None:
    tokens = await suite.tokens()
    first = await suite.claims(tokens)
    credentials = {"client_id": suite.client["client_id"], "client_secret": suite.client["client_secret"]}
    refreshed = (await suite.auth.refresh(tokens["refresh_token"], **credentials)).json()
    second = await suite.claims(refreshed)
    assert [first[name] for name in ("iss", "sub", "aud", "auth_time")] == [
        second[name] for name in ("iss", "sub", "aud", "auth_time")
    ]
    other = await suite.auth.refresh(refreshed["refresh_token"])
    assert other.json()["error"] == "invalid_grant"


@module("oidcc-ensure-request-with-valid-pkce-succeeds")
async def _(suite: Suite) -> None:
    assert "id_token" in await suite.tokens()


@module("oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported")
async def _(suite: Suite) -> None:
    request = jwt.encode({"state": "s9"}, "", algorithm="none")
    assert sent(await suite.authorize(request=request))["error"] == "request_not_supported"


@module("oidcc-claims-essential")
async def _(suite: Suite) -> None:
    """The parameter is ignored, as the metadata says."""
    assert "id_token" in await suite.tokens(claims='{"userinfo": {"name": {"essential": true}}}')


@module("oidcc-rp-initiated-logout")
async def _(suite: Suite) -> None:
    tokens = await suite.tokens()
    wanted = {"post_logout_redirect_uri": "https://shop.example/bye", "state": "s3"}
    answer = await suite.browser.open("/sign-out", {"id_token_hint": tokens["id_token"], **wanted})
    assert answer.headers["Location"] == "https://shop.example/bye?state=s3"
    assert sent(await suite.authorize(prompt="none"))["error"] == "login_required"


@module("oidcc-rp-initiated-logout-bad-post-logout-redirect-uri")
async def _(suite: Suite) -> None:
    tokens = await suite.tokens()
    wanted = {"post_logout_redirect_uri": "https://shop.example/bye/x", "id_token_hint": tokens["id_token"]}
    assert (await suite.browser.open("/sign-out", wanted)).status_code == 400


@module("oidcc-rp-initiated-logout-modified-id-token-hint")
async def _(suite: Suite) -> None:
    tokens = await suite.tokens()
    answer = await suite.browser.open("/sign-out", {"id_token_hint": f"{tokens['id_token'][:-8]}AAAAAAAA"})
    assert Forms(answer.text).action == "/sign-out"
    assert "code" in sent(await suite.authorize(prompt="none"))


@module("oidcc-rp-initiated-logout-no-id-token-hint")
async def _(suite: Suite) -> None:
    await suite.tokens()
    page = await suite.browser.open("/sign-out")
    assert Forms(page.text).action == "/sign-out"
    assert "You are signed out" in (await suite.browser.submit(page)).text
    assert sent(await suite.authorize(prompt="none"))["error"] == "login_required"


@module("oidcc-discovery-endpoint-verification")
async def _(suite: Suite) -> None:
    found = (await suite.auth.http.get("/.well-known/openid-configuration")).json()
    assert found["issuer"] == ISSUER
    for name in ("authorization", "token", "userinfo", "end_session"):
        assert found[f"{name}_endpoint"].startswith(f"{ISSUER}/")
    assert {"openid", "profile", "email"} <= set(found["scopes_supported"])
    assert found["response_types_supported"] == ["code"]
    assert found["subject_types_supported"] == ["public"]
    assert found["id_token_signing_alg_values_supported"] == ["ES256"]
    assert found["authorization_response_iss_parameter_supported"] is True


async def test_modules_of_the_basic_profile(
    auth: Auth, users: Users, database: Database, register: Register, subtests: pytest.Subtests
) -> None:
    client, ada = await register(**CLIENT), users.add("ada@example.com")
    for name, run in MODULES.items():
        with subtests.test(name):
            async with database.transaction() as session:
                await session.execute(text("DELETE FROM consents"))
            await run(Suite(auth, database, client, ada))


async def test_what_is_not_supported_is_refused_as_specified(auth: Auth, register: Register) -> None:
    """`oidcc-scope-address`, `-phone` and `-all` ask for scopes that no client has here: RFC 6749 lets us refuse."""
    client, browser = await register(**CLIENT), Browser(auth)
    for changes, error in (
        ({"scope": "openid address"}, "invalid_scope"),
        ({"scope": "openid phone"}, "invalid_scope"),
        ({"request_uri": "https://shop.example/request"}, "request_uri_not_supported"),
        ({"registration": "{}"}, "registration_not_supported"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ):
        assert sent(await browser.authorize(client["client_id"], **changes))["error"] == error
