"""Revocation (RFC 7009) and introspection (RFC 7662)."""

from typing import Any

import httpx

from auth.settings import Settings
from common.db.database import Database
from common.settings import resource

from .conftest import Auth, Users, serving
from .test_refresh import events, refused
from .test_sessions import bearer, sid

ORDERS = httpx.BasicAuth("orders", "orders-secret")
NOTIFIER = httpx.BasicAuth("notifier", "s%3Ae+c%2Br%2Fe%25t")


async def introspected(auth: Auth, token: str, client: httpx.BasicAuth = ORDERS) -> dict[str, Any]:
    answer = await auth.http.post("/introspect", data={"token": token}, auth=client)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    body: dict[str, Any] = answer.json()
    return body


async def revoked(auth: Auth, token: str, client: httpx.BasicAuth | None = None) -> int:
    answer = await auth.http.post("/revoke", data={"token": token}, auth=client or httpx.USE_CLIENT_DEFAULT)
    assert answer.content == b"" or answer.status_code >= 400
    return answer.status_code


async def client_token(auth: Auth, client: httpx.BasicAuth = ORDERS) -> str:
    answer = await auth.http.post("/token", data={"grant_type": "client_credentials"}, auth=client)
    return str(answer.json()["access_token"])


async def test_a_valid_access_token_is_described(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com")
    tokens = await auth.sign_in(ada, resource=resource("orders"), scope="orders:read")
    described = await introspected(auth, tokens["access_token"])
    assert {name: described[name] for name in ("active", "scope", "client_id", "sub", "aud", "sid", "token_type")} == {
        "active": True,
        "scope": "orders:read",
        "client_id": "web",
        "sub": str(ada.user_id),
        "aud": [resource("orders")],
        "sid": sid(tokens),
        "token_type": "Bearer",
    }


async def test_a_valid_refresh_token_is_described(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com")
    tokens = await auth.sign_in(ada)
    described = await introspected(auth, tokens["refresh_token"])
    assert (described["active"], described["client_id"], described["sub"]) == (True, "web", str(ada.user_id))
    assert described["exp"] - described["iat"] == 14 * 86400
    await auth.refresh(tokens["refresh_token"])
    assert await introspected(auth, tokens["refresh_token"]) == {"active": False}


async def test_any_other_token_is_inactive_and_not_described(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    for token in ("x", "wbr_" + "A" * 70, tokens["access_token"] + "x", "a.b.c"):
        assert await introspected(auth, token) == {"active": False}
    await auth.http.delete("/sessions", headers=bearer(tokens))
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert await introspected(auth, token) == {"active": False}


async def test_introspection_needs_a_client_with_a_secret(auth: Auth) -> None:
    for form in ({"token": "x"}, {"token": "x", "client_id": "web"}, {"token": "x", "client_id": "orders"}):
        answer = await auth.http.post("/introspect", data=form)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    answer = await auth.http.post("/introspect", data={}, auth=ORDERS)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_a_managed_client_can_introspect_its_own_tokens_only(auth: Auth) -> None:
    admin = await auth.sign_in(auth.users.add("root@example.com", role="admin"))
    body = {"name": "reports", "grant_types": ["client_credentials"], "scopes": ["events:read"]}
    registered = (await auth.http.post("/clients", json=body, headers=bearer(admin))).json()
    client = httpx.BasicAuth(registered["client_id"], registered["client_secret"])
    assert (await introspected(auth, await client_token(auth, client), client))["active"] is True
    assert await introspected(auth, admin["access_token"], client) == {"active": False}


async def test_revoking_a_refresh_token_ends_the_session(auth: Auth, database: Database) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    assert await revoked(auth, tokens["refresh_token"]) == 200
    assert await refused(auth, tokens["refresh_token"])
    assert (await auth.http.get("/sessions", headers=bearer(tokens))).status_code == 401
    assert (await events(database))[-1][2]["reason"] == "token_revoked"


async def test_revoking_a_used_refresh_token_ends_the_session_too(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    child = (await auth.refresh(tokens["refresh_token"])).json()
    grandchild = (await auth.refresh(child["refresh_token"])).json()
    assert await revoked(auth, tokens["refresh_token"]) == 200
    assert await refused(auth, grandchild["refresh_token"])


async def test_revoking_an_access_token_ends_the_session(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"), resource=resource("orders"))
    assert await revoked(auth, tokens["access_token"]) == 200
    assert await refused(auth, tokens["refresh_token"])


async def test_a_clients_own_token_can_be_revoked(auth: Auth, database: Database) -> None:
    token, other = await client_token(auth), await client_token(auth)
    assert await revoked(auth, token, ORDERS) == 200
    assert await revoked(auth, token, ORDERS) == 200
    assert await introspected(auth, token) == {"active": False}
    assert (await introspected(auth, other))["active"] is True
    event_type, version, data = (await events(database))[-1]
    assert (event_type, version) == ("auth.session.revoked.v1", 1)
    assert (data["user_id"], data["client_id"], data["reason"]) == (None, "orders", "token_revoked")
    service = {"Authorization": f"Bearer {other}"}
    snapshot = (await auth.internal.get("/internal/revocations", headers=service)).json()
    assert snapshot["sessions"] == [{"session_id": data["session_id"]}]
    refused = await auth.internal.get("/internal/revocations", headers={"Authorization": f"Bearer {token}"})
    assert refused.status_code == 401


async def test_revoking_an_unknown_token_succeeds_and_changes_nothing(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    for token in ("x", "wbr_" + "A" * 70, tokens["refresh_token"][:-4] + "AAAA", "a.b.c"):
        assert await revoked(auth, token) == 200
    assert (await auth.refresh(tokens["refresh_token"])).status_code == 200


async def test_another_clients_token_cannot_be_revoked(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert await revoked(auth, token, NOTIFIER) == 400
    assert await revoked(auth, await client_token(auth)) == 400
    assert (await auth.refresh(tokens["refresh_token"])).status_code == 200


async def test_revocation_needs_a_token_and_right_credentials(auth: Auth) -> None:
    answer = await auth.http.post("/revoke", data={})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    answer = await auth.http.post("/revoke", data={"token": "x"}, auth=httpx.BasicAuth("orders", "wrong"))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    answer = await auth.http.post("/revoke", json={"token": "x"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_the_metadata_names_working_endpoints(auth: Auth, settings: Settings, users: Users) -> None:
    metadata = (await auth.http.get("/.well-known/oauth-authorization-server")).json()
    assert metadata["issuer"] == "http://gateway.test"
    for endpoint in ("token_endpoint", "revocation_endpoint", "introspection_endpoint"):
        path = metadata[endpoint].removeprefix("http://gateway.test")
        assert (await auth.http.post(path)).status_code == 400
    assert (await auth.http.get(metadata["jwks_uri"].removeprefix("http://gateway.test"))).status_code == 200
    assert metadata["grant_types_supported"] == [
        "authorization_code",
        "password",
        "refresh_token",
        "client_credentials",
    ]
    assert metadata["response_types_supported"] == ["code"]
    assert (await auth.http.get("/.well-known/openid-configuration")).json() == metadata
    async with serving(settings, users) as other:
        assert (await other.http.get("/.well-known/oauth-authorization-server")).json() == metadata
