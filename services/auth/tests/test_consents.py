"""What people allow the clients of others, what that is good for, and how it ends."""

import asyncio

from sqlalchemy import text

from auth.sessions.queries import delete_consents, lock_sessions_of_client
from common.db.database import Database
from common.testing.plugin import eventually

from .browsing import Browser, Forms, exchange, sent
from .conftest import Auth, Person, Users
from .test_clients import Register, admin, register
from .test_code_flow import SHOP, ada, settings
from .test_refresh import events
from .test_sessions import bearer

__all__ = ["ada", "admin", "register", "settings"]


async def test_another_client_asks_once_for_consent_and_scopes_add_up(
    auth: Auth, ada: Person, register: Register
) -> None:
    shop, browser = await register(**SHOP), Browser(auth)
    page = await browser.sign_in(await browser.authorize(shop["client_id"]), ada)
    assert Forms(page.text).action == "/consent"
    for words in ("Shop", "Know your e-mail address", "See your orders", "https://shop.example/signed-in"):
        assert words in Forms(page.text).text
    assert sent(await browser.submit(page, decision="deny"))["error"] == "access_denied"
    page = await browser.authorize(shop["client_id"])
    tokens = (await exchange(auth, sent(await browser.submit(page, decision="allow"))["code"], shop)).json()
    assert tokens["scope"] == "orders:read openid profile email"
    assert "code" in sent(await browser.authorize(shop["client_id"]))
    assert "code" in sent(await browser.authorize(shop["client_id"], scope="openid"))
    page = await browser.authorize(shop["client_id"], scope="orders:write")
    assert "code" in sent(await browser.submit(page, decision="allow"))
    assert "code" in sent(await browser.authorize(shop["client_id"], scope="orders:write orders:read openid"))
    asked_again = await browser.authorize(shop["client_id"], prompt="consent")
    assert "code" in sent(await browser.submit(asked_again, decision="allow"))
    assert "code" in sent(await browser.authorize(prompt="consent"))
    own = bearer(await auth.sign_in(ada))
    [granted] = (await auth.http.get("/grants", headers=own)).json()["items"]
    assert (granted["client_id"], granted["name"]) == (shop["client_id"], "Shop")
    assert set(granted["scopes"]) == {"openid", "profile", "email", "orders:read", "orders:write"}


async def test_another_clients_token_does_what_its_scopes_say_and_nothing_else(
    auth: Auth, users: Users, register: Register
) -> None:
    root = users.add("other-root@example.com", role="admin")
    shop = await register(**SHOP)
    tokens = (await exchange(auth, await Browser(auth).code(root, shop["client_id"]), shop)).json()
    principal = await auth.principal(tokens["access_token"])
    assert (principal.user_id, principal.roles, principal.is_delegated) == (root.user_id, frozenset(), True)
    for method, path in (
        *(
            ("GET", "/sessions"),
            ("DELETE", "/sessions"),
            ("GET", "/grants"),
            ("DELETE", f"/grants/{shop['client_id']}"),
        ),
        *(("GET", "/clients"), ("POST", "/clients"), ("PATCH", f"/clients/{shop['client_id']}")),
    ):
        refusal = await auth.http.request(method, path, headers=bearer(tokens))
        assert (refusal.status_code, refusal.json()["code"]) == (403, "insufficient_scope"), path
    userinfo = await auth.http.get("/userinfo", headers=bearer(tokens))
    assert userinfo.json() == {"sub": str(root.user_id), "name": "Ada", "email": root.email, "email_verified": True}


async def test_a_withdrawn_grant_ends_the_clients_sessions_and_its_codes(
    auth: Auth, ada: Person, register: Register, database: Database
) -> None:
    shop, browser = await register(**SHOP), Browser(auth)
    tokens = (await exchange(auth, await browser.code(ada, shop["client_id"]), shop)).json()
    unused = await browser.code(ada, shop["client_id"])
    own = bearer(await auth.sign_in(ada))
    path = f"/grants/{shop['client_id']}"
    assert (await auth.http.delete(path, headers=own)).status_code == 204
    assert (await events(database))[-1][2]["reason"] == "consent_withdrawn"
    assert (await auth.http.get("/userinfo", headers=bearer(tokens))).status_code == 401
    assert (await exchange(auth, unused, shop)).json()["error"] == "invalid_grant"
    gone = await auth.http.delete(path, headers=own)
    assert (gone.status_code, gone.json()["code"]) == (404, "grant_not_found")
    assert (await auth.http.get("/grants", headers=own)).json() == {"items": [], "next_cursor": None}
    assert Forms((await browser.authorize(shop["client_id"])).text).action == "/consent"


async def test_a_revoked_secret_ends_peoples_sessions_with_the_client(
    auth: Auth, ada: Person, register: Register, admin: dict[str, str]
) -> None:
    shop, browser = await register(**SHOP), Browser(auth)
    tokens = (await exchange(auth, await browser.code(ada, shop["client_id"]), shop)).json()
    path = f"/clients/{shop['client_id']}/secret"
    assert (await auth.http.post(path, json={"revoke_previous": True}, headers=admin)).status_code == 201
    assert (await auth.http.get("/userinfo", headers=bearer(tokens))).status_code == 401


async def test_a_grant_is_withdrawn_while_its_client_is_deleted(
    auth: Auth, ada: Person, register: Register, database: Database
) -> None:
    shop, own = await register(**SHOP), bearer(await auth.sign_in(ada))
    await exchange(auth, await Browser(auth).code(ada, shop["client_id"]), shop)

    async def waits() -> bool:
        async with database.transaction() as other:
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(await other.scalar(text(query)))

    async with database.transaction() as session:
        await lock_sessions_of_client(session, shop["client_id"])
        withdrawn = asyncio.create_task(auth.http.delete(f"/grants/{shop['client_id']}", headers=own))
        await eventually(waits)
        await delete_consents(session, client_id=shop["client_id"])
    assert (await withdrawn).status_code == 404
