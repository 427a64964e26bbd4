"""Modules about the authorization request: its parameters, redirect URIs and codes."""

from .browsing import CALLBACK, Browser, Forms, exchange, sent
from .conformance_suite import Suite, module
from .test_sessions import bearer


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
