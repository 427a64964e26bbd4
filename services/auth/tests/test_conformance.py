"""Modules of the OpenID Foundation's conformance suite (plan `oidcc-basic-certification-test-plan`), by their names.

Each is what the suite's module of that name does and expects, with PKCE added to every request, because we require it.
What we answer otherwise than the suite would like is in `test_what_is_not_supported_is_refused_as_specified`.
"""

import jwt
import pytest
from sqlalchemy import text

from common.db.database import Database

from . import conformance_requests  # noqa: F401 - registers its modules
from .browsing import ISSUER, Browser, Forms, exchange, sent
from .conformance_suite import CLIENT, MODULES, Suite, module
from .conftest import Auth, Users
from .test_clients import Register, admin, register
from .test_sessions import bearer

__all__ = ["admin", "register"]


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
