"""Changes of clients: PATCH, the overlap of two secrets, public clients, and the scope to introspect any token."""

import httpx
from sqlalchemy import text

from common.db.database import Database

from .browsing import CALLBACK, Browser, exchange
from .conftest import Auth, Person, Users
from .test_clients import Register, admin, client_token, register
from .test_sessions import bearer

__all__ = ["admin", "register"]

SHOP = {
    "grant_types": ["authorization_code", "refresh_token"],
    "scopes": ["orders:read", "openid"],
    "redirect_uris": [CALLBACK],
}


async def test_a_client_is_changed_field_by_field(auth: Auth, admin: dict[str, str], register: Register) -> None:
    client = await register(**SHOP)
    path = f"/clients/{client['client_id']}"
    answer = await auth.http.patch(
        path, json={"name": "Other", "redirect_uris": [CALLBACK, "com.a.b:/x"]}, headers=admin
    )
    assert answer.status_code == 200
    shown = {**client, "name": "Other", "redirect_uris": [CALLBACK, "com.a.b:/x"]}
    del shown["client_secret"]
    assert answer.json() == shown == (await auth.http.get(path, headers=admin)).json()
    for change, code in (
        ({"redirect_uris": []}, "invalid_registration"),
        ({"redirect_uris": ["http://shop.example/"]}, "validation_error"),
        ({"name": None}, "validation_error"),
        ({"public": True}, "validation_error"),
        ({"scopes": ["account"]}, "validation_error"),
    ):
        refused = await auth.http.patch(path, json=change, headers=admin)
        assert (refused.status_code, refused.json()["code"]) == (422, code), change
    assert (await auth.http.patch("/clients/unknown", json={}, headers=admin)).status_code == 404
    assert (await auth.http.patch(path, json={"name": "Other"})).status_code == 401


async def test_a_scope_that_a_client_loses_is_in_none_of_its_next_tokens(
    auth: Auth, users: Users, admin: dict[str, str], register: Register
) -> None:
    ada: Person = users.add("ada@example.com")
    client = await register(**SHOP)
    code = await Browser(auth).code(ada, client["client_id"], scope="openid orders:read")
    tokens = (await exchange(auth, code, client)).json()
    assert tokens["scope"] == "orders:read openid"
    await auth.http.patch(f"/clients/{client['client_id']}", json={"scopes": ["openid"]}, headers=admin)
    credentials = {"client_id": client["client_id"], "client_secret": client["client_secret"]}
    assert (await auth.refresh(tokens["refresh_token"], **credentials)).json()["scope"] == "openid"


async def test_the_secret_before_is_good_for_a_day_more(
    auth: Auth, admin: dict[str, str], register: Register, database: Database
) -> None:
    client = await register()
    token = (await client_token(auth, client)).json()["access_token"]
    path = f"/clients/{client['client_id']}/secret"
    renewed = client | (await auth.http.post(path, headers=admin)).json()
    for each in (client, renewed):
        assert (await client_token(auth, each)).status_code == 200
    inspected = await auth.http.post(
        "/introspect", data={"token": token}, auth=(client["client_id"], renewed["client_secret"])
    )
    assert inspected.json()["active"] is True
    async with database.transaction() as session:
        await session.execute(text("UPDATE clients SET previous_secret_until = previous_secret_until - interval '24h'"))
    assert (await client_token(auth, client)).json()["error"] == "invalid_client"
    last = (await auth.http.post(path, json={"revoke_previous": True}, headers=admin)).json()
    assert (await client_token(auth, renewed)).json()["error"] == "invalid_client"
    assert (await client_token(auth, last)).status_code == 200


async def test_a_public_client_has_no_secret_and_proves_itself_by_the_verifier(
    auth: Auth, users: Users, admin: dict[str, str], register: Register
) -> None:
    client, ada = await register(**SHOP, public=True), users.add("ada@example.com")
    assert "client_secret" not in client
    code = await Browser(auth).code(ada, client["client_id"], scope="openid")
    assert (await exchange(auth, code, client, client_secret="wbs_x")).json()["error"] == "invalid_client"
    tokens = (await exchange(auth, code, client)).json()
    assert (await auth.refresh(tokens["refresh_token"], client_id=client["client_id"])).status_code == 200
    refused = await auth.http.post(f"/clients/{client['client_id']}/secret", headers=admin)
    assert (refused.status_code, refused.json()["code"]) == (409, "public_client")
    form = {"token": tokens["access_token"], "client_id": client["client_id"]}
    assert (await auth.http.post("/introspect", data=form)).json()["error"] == "invalid_client"


async def test_a_deleted_client_takes_peoples_sessions_with_it(
    auth: Auth, users: Users, admin: dict[str, str], register: Register
) -> None:
    client, ada = await register(**SHOP), users.add("ada@example.com")
    code = await Browser(auth).code(ada, client["client_id"], scope="openid")
    tokens = (await exchange(auth, code, client)).json()
    await auth.http.delete(f"/clients/{client['client_id']}", headers=admin)
    assert (await auth.http.get("/userinfo", headers=bearer(tokens))).status_code == 401
    own = bearer(await auth.sign_in(ada))
    assert (await auth.http.get("/grants", headers=own)).json()["items"] == []
    assert [each["client_id"] for each in (await auth.http.get("/sessions", headers=own)).json()["items"]] == ["web"]


async def test_a_client_is_told_of_others_tokens_only_with_the_scope_for_it(
    auth: Auth, users: Users, register: Register
) -> None:
    tokens = await auth.sign_in(users.add("ada@example.com"))
    seen = {}
    for scopes in (("orders:read",), ("orders:read", "tokens:introspect")):
        client = await register(scopes=list(scopes))
        credentials = httpx.BasicAuth(client["client_id"], client["client_secret"])
        answers = [
            await auth.http.post("/introspect", data={"token": token}, auth=credentials)
            for token in (tokens["access_token"], tokens["refresh_token"])
        ]
        seen[scopes] = [answer.json()["active"] for answer in answers]
    assert list(seen.values()) == [[False, False], [True, True]]
