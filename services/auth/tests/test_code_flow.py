"""The authorization code flow from the browser to the tokens, and what ends what it began."""

import asyncio

import jwt
import pytest
from sqlalchemy import text

from auth.settings import Settings
from auth.tokens.identity import half_hash
from common.db.database import Database

from .browsing import CALLBACK, ISSUER, VERIFIER, Browser, Forms, exchange, sent
from .conftest import PASSWORD, Auth, Happens, Person, Users, serving
from .test_clients import Register, admin, register
from .test_refresh import events
from .test_sessions import bearer, sid

__all__ = ["admin", "register"]

SHOP = {
    "name": "Shop",
    "grant_types": ["authorization_code", "refresh_token"],
    "scopes": ["orders:read", "orders:write", "openid", "profile", "email"],
    "redirect_uris": [CALLBACK],
    "post_logout_redirect_uris": ["https://shop.example/bye"],
}


@pytest.fixture
async def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"web_redirect_uris": (CALLBACK,)})


@pytest.fixture
def ada(users: Users) -> Person:
    return users.add("ada@example.com", role="staff")


async def test_a_first_party_client_gets_tokens_after_a_sign_in_without_a_question(auth: Auth, ada: Person) -> None:
    browser = Browser(auth)
    page = await browser.authorize(scope="openid account orders:read")
    assert page.status_code == 200
    answer = await browser.sign_in(page, ada)
    assert answer.headers["Location"].startswith(f"{CALLBACK}?")
    assert sent(answer).keys() == {"code", "state", "iss"}
    assert sent(answer)["state"] == "s1"
    response = await exchange(auth, sent(answer)["code"])
    tokens = response.json()
    assert response.headers["Cache-Control"] == "no-store"
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "id_token", "scope"}
    assert tokens["scope"] == "account orders:read openid"
    principal = await auth.principal(tokens["access_token"])
    assert (principal.user_id, principal.client_id, principal.roles) == (ada.user_id, "web", frozenset({"staff"}))
    [listed] = (await auth.http.get("/sessions", headers=bearer(tokens))).json()["items"]
    assert (listed["id"], listed["client_id"], listed["amr"]) == (sid(tokens), "web", ["pwd"])
    again = sent(await browser.authorize())
    assert again.keys() == {"code", "state", "iss"}


async def test_an_id_token_says_who_signed_in_when_and_how(auth: Auth, users: Users) -> None:
    ada = users.add("ada@example.com", code="123456")
    browser = Browser(auth)
    page = await browser.sign_in(await browser.authorize(), ada)
    assert Forms(page.text).fields.keys() == {"form", "otp"}
    tokens = (await exchange(auth, sent(await browser.submit(page, otp="123456"))["code"])).json()
    header = jwt.get_unverified_header(tokens["id_token"])
    key = jwt.PyJWKSet.from_dict((await auth.http.get("/.well-known/jwks.json")).json())[header["kid"]]
    claims = jwt.decode(tokens["id_token"], key, algorithms=["ES256"], audience="web", issuer=ISSUER)
    access = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    assert header["typ"] == "JWT"
    assert claims == {
        "iss": ISSUER,
        "sub": str(ada.user_id),
        "aud": "web",
        "exp": claims["iat"] + 300,
        "iat": claims["iat"],
        "auth_time": access["auth_time"],
        "nonce": "n1",
        "sid": access["sid"],
        "amr": ["pwd", "otp", "mfa"],
        "at_hash": half_hash(tokens["access_token"]),
    }
    assert (
        await auth.http.get("/sessions", headers={"Authorization": f"Bearer {tokens['id_token']}"})
    ).status_code == 401
    refreshed = (await auth.refresh(tokens["refresh_token"])).json()
    later = jwt.decode(refreshed["id_token"], options={"verify_signature": False})
    assert (later["sub"], later["auth_time"], later["sid"]) == (claims["sub"], claims["auth_time"], claims["sid"])
    assert "nonce" not in later


async def test_a_second_use_of_a_code_ends_the_session_that_the_first_began(
    auth: Auth, ada: Person, database: Database
) -> None:
    code = await Browser(auth).code(ada)
    tokens = (await exchange(auth, code)).json()
    stranger = await exchange(auth, code, code_verifier="x" * 43)
    assert stranger.json()["error"] == "invalid_grant"
    assert (await auth.http.get("/userinfo", headers=bearer(tokens))).status_code == 200
    assert (await exchange(auth, code)).json()["error"] == "invalid_grant"
    assert (await auth.http.get("/userinfo", headers=bearer(tokens))).status_code == 401
    assert (await auth.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await events(database))[-1][2]["reason"] == "code_reuse"
    assert (await exchange(auth, code)).json()["error"] == "invalid_grant"


async def test_a_code_is_for_its_client_uri_and_verifier_and_for_a_minute(
    auth: Auth, ada: Person, register: Register, database: Database
) -> None:
    shop, other = await register(**SHOP), await register(**SHOP | {"name": "Other"})
    browser = Browser(auth)
    code = await browser.code(ada, shop["client_id"])
    for answer in (
        await exchange(auth, code, other),
        await exchange(auth, code, "web"),
        await exchange(auth, code, shop, redirect_uri=f"{CALLBACK}/"),
        await exchange(auth, code, shop, code_verifier=VERIFIER[:-1] + "!"),
        await exchange(auth, code, shop, code_verifier="v" * 129),
        await exchange(auth, f"{code}x", shop),
    ):
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    for missing in ("redirect_uri", "code_verifier"):
        answer = await exchange(auth, code, shop, **{missing: ""})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert (await exchange(auth, code, {**shop, "client_secret": "wbs_x"})).json()["error"] == "invalid_client"
    assert (await exchange(auth, code, shop, resource="https://x.example")).json()["error"] == "invalid_target"
    assert (await exchange(auth, code, shop)).status_code == 200
    late = await browser.code(ada, shop["client_id"])
    async with database.transaction() as session:
        await session.execute(text("UPDATE authorization_codes SET expires_at = expires_at - interval '61 seconds'"))
    assert (await exchange(auth, late, shop)).json()["error"] == "invalid_grant"


async def test_neither_codes_nor_cookies_are_at_rest(auth: Auth, ada: Person, database: Database) -> None:
    browser = Browser(auth)
    code = await browser.code(ada)
    tokens = (await exchange(auth, code)).json()
    async with database.transaction() as session:
        stored = ""
        for table in ("authorization_codes", "browser_sessions", "sessions", "outbox"):
            stored += str((await session.execute(text(f"SELECT {table}::text FROM {table}"))).all())  # noqa: S608
    for secret in (code, browser.http.cookies["waybill"], tokens["refresh_token"], tokens["access_token"], ada.email):
        assert secret not in stored


@pytest.mark.parametrize("how", ["everywhere", "sign-out", "new password", "deactivated"])
async def test_what_ends_the_sessions_ends_the_browsers_too(
    auth: Auth, ada: Person, happens: Happens, how: str
) -> None:
    browser = Browser(auth)
    tokens = (await exchange(auth, await browser.code(ada))).json()
    unused = await browser.code(ada)
    if how == "everywhere":
        await auth.http.delete("/sessions", headers=bearer(await auth.sign_in(ada)))
    elif how == "sign-out":
        page = await browser.open("/sign-out")
        assert "signed out" in (await browser.submit(page)).text
    else:
        event = {"new password": "password_changed", "deactivated": "deactivated"}[how]
        await happens(event, ada, version=2)
    assert Forms((await browser.authorize()).text).action == "/sign-in"
    assert (await exchange(auth, unused)).json()["error"] == "invalid_grant"
    assert (await auth.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_signing_out_ends_what_was_authorized_before_another_sign_in_in_the_same_browser(
    auth: Auth, ada: Person, users: Users
) -> None:
    browser, bob = Browser(auth), users.add("bob@example.com")
    before = (await exchange(auth, await browser.code(ada))).json()
    code = sent(await browser.sign_in(await browser.authorize(prompt="login"), ada))["code"]
    after = (await exchange(auth, code)).json()
    before = (await auth.refresh(before["refresh_token"])).json()
    assert "access_token" in before
    await browser.submit(await browser.open("/sign-out"))
    for tokens in (before, after):
        assert (await auth.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    adas = (await exchange(auth, await browser.code(ada))).json()
    code = sent(await browser.sign_in(await browser.authorize(prompt="login"), bob))["code"]
    assert (await exchange(auth, code)).status_code == 200
    assert (await auth.refresh(adas["refresh_token"])).json()["error"] == "invalid_grant"


async def test_of_the_session_in_which_the_password_is_changed_the_tokens_stay_and_the_browser_ends(
    auth: Auth, ada: Person, happens: Happens
) -> None:
    """Whoever has the browser's cookie would begin new sessions with it."""
    here, there = Browser(auth), Browser(auth)
    tokens = (await exchange(auth, await here.code(ada))).json()
    await there.code(ada)
    await happens("password_changed", ada, version=2, except_session_id=sid(tokens))
    for browser in (here, there):
        assert Forms((await browser.authorize()).text).action == "/sign-in"
    assert (await auth.refresh(tokens["refresh_token"])).status_code == 200


async def test_sign_out_at_once_with_an_id_token_and_after_a_click_without(
    auth: Auth, ada: Person, register: Register
) -> None:
    shop, browser = await register(**SHOP), Browser(auth)
    tokens = (await exchange(auth, await browser.code(ada, shop["client_id"]), shop)).json()
    hint = {"id_token_hint": tokens["id_token"], "state": "s2"}
    bad = await browser.open("/sign-out", hint | {"post_logout_redirect_uri": "https://evil.example/"})
    assert bad.status_code == 400
    assert (await auth.http.get("/userinfo", headers=bearer(tokens))).status_code == 200
    left = await browser.open("/sign-out", hint | {"post_logout_redirect_uri": "https://shop.example/bye"})
    assert (left.status_code, left.headers["Location"]) == (303, "https://shop.example/bye?state=s2")
    assert (await auth.http.get("/userinfo", headers=bearer(tokens))).status_code == 401
    assert Forms((await browser.authorize(shop["client_id"])).text).action == "/sign-in"
    tokens = (await exchange(auth, await browser.code(ada, shop["client_id"]), shop)).json()
    asked = {"client_id": shop["client_id"], "post_logout_redirect_uri": "https://shop.example/bye"}
    page = await browser.open("/sign-out", asked)
    assert (await auth.http.get("/userinfo", headers=bearer(tokens))).status_code == 200
    assert (await browser.submit(page)).headers["Location"] == "https://shop.example/bye"
    assert (await auth.http.get("/userinfo", headers=bearer(tokens))).status_code == 401


async def test_the_password_grant_can_be_turned_off(settings: Settings, users: Users, ada: Person) -> None:
    async with serving(settings.model_copy(update={"password_grant": "off"}), users) as auth:
        answer = await auth.token(grant_type="password", username=ada.email, password=PASSWORD)
        assert answer.json()["error"] == "unsupported_grant_type"
        metadata = (await auth.http.get("/.well-known/openid-configuration")).json()
        assert "password" not in metadata["grant_types_supported"]
        assert (await exchange(auth, await Browser(auth).code(ada))).status_code == 200


async def test_parallel_uses_of_a_code_leave_no_session(auth: Auth, ada: Person, database: Database) -> None:
    code = await Browser(auth).code(ada)
    answers = await asyncio.gather(*(exchange(auth, code) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400]
    async with database.transaction() as session:
        live = await session.scalar(text("SELECT count(*) FROM sessions WHERE revoked_at IS NULL"))
    assert live == 0
