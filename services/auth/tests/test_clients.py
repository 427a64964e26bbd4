"""OAuth clients managed by administrators."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from common.db.database import Database
from common.security.revocation import Denylist, SubjectRevoked

from .conftest import Auth
from .test_refresh import events
from .test_sessions import bearer, sid

REPORTS = {"name": "Reports", "grant_types": ["client_credentials"], "scopes": ["orders:read", "events:read"]}


@pytest.fixture
async def admin(auth: Auth) -> dict[str, str]:
    return bearer(await auth.sign_in(auth.users.add("root@example.com", role="admin")))


Register = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def register(auth: Auth, admin: dict[str, str]) -> Register:
    async def register(**changes: Any) -> dict[str, Any]:
        answer = await auth.http.post("/clients", json=REPORTS | changes, headers=admin)
        assert answer.status_code == 201, answer.text
        client: dict[str, Any] = answer.json()
        return client

    return register


async def client_token(auth: Auth, client: dict[str, Any], **form: str) -> httpx.Response:
    credentials = httpx.BasicAuth(client["client_id"], client["client_secret"])
    return await auth.http.post("/token", data={"grant_type": "client_credentials", **form}, auth=credentials)


async def test_a_registered_client_gets_tokens(auth: Auth, register: Register) -> None:
    client = await register()
    answer = await client_token(auth, client, scope="orders:read")
    assert answer.status_code == 200
    principal = await auth.principal(answer.json()["access_token"])
    assert (principal.subject, principal.client_id) == (client["client_id"], client["client_id"])
    assert (principal.scopes, principal.roles) == (frozenset({"orders:read"}), frozenset())


async def test_a_clients_secret_is_shown_once_and_stored_as_a_hash(
    auth: Auth, admin: dict[str, str], register: Register, database: Database
) -> None:
    client = await register()
    listed = (await auth.http.get("/clients", headers=admin)).json()
    assert listed["items"] == [{name: client[name] for name in client if name != "client_secret"}]
    shown = await auth.http.get(f"/clients/{client['client_id']}", headers=admin)
    assert shown.json() == listed["items"][0]
    async with database.transaction() as session:
        stored = (await session.execute(text("SELECT clients::text FROM clients"))).scalar_one()
    assert client["client_secret"] not in stored


async def test_a_client_may_have_no_scope(auth: Auth, register: Register) -> None:
    client = await register(scopes=[])
    answer = (await client_token(auth, client)).json()
    assert answer["scope"] == ""
    assert (await auth.principal(answer["access_token"])).scopes == frozenset()


async def test_a_managed_client_cannot_use_the_password_grant(auth: Auth, admin: dict[str, str]) -> None:
    answer = await auth.http.post("/clients", json=REPORTS | {"grant_types": ["password"]}, headers=admin)
    assert answer.status_code == 422


async def test_a_client_cannot_use_a_grant_type_it_is_not_registered_for(auth: Auth, register: Register) -> None:
    client = await register(grant_types=["refresh_token"])
    answer = await client_token(auth, client)
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")


@pytest.mark.parametrize("how", ["new secret", "deleted"])
async def test_a_new_secret_or_deletion_voids_the_clients_tokens(
    auth: Auth, admin: dict[str, str], register: Register, database: Database, how: str
) -> None:
    client = await register(scopes=["revocations:read"])
    token = (await client_token(auth, client)).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert (await auth.internal.get("/internal/revocations", headers=headers)).status_code == 200
    path = f"/clients/{client['client_id']}"
    if how == "deleted":
        assert (await auth.http.delete(path, headers=admin)).status_code == 204
    else:
        renewed = await auth.http.post(f"{path}/secret", json={"revoke_previous": True}, headers=admin)
        assert renewed.status_code == 201
        assert (await client_token(auth, renewed.json())).status_code == 200
    assert (await client_token(auth, client)).json()["error"] == "invalid_client"
    assert (await auth.internal.get("/internal/revocations", headers=headers)).status_code == 401
    denylist = Denylist()
    denylist.revoke_subject(SubjectRevoked.model_validate((await events(database))[-1][2]))
    assert denylist.denies(await auth.principal(token))
    snapshot = await auth.internal.get("/internal/revocations", headers=await auth.service_token())
    assert {
        "subject": client["client_id"],
        "min_session_version": 2,
        "except_session_id": None,
        "except_session_version": None,
    } in snapshot.json()["subjects"]


async def test_an_unknown_or_deleted_client_is_not_found(auth: Auth, admin: dict[str, str], register: Register) -> None:
    client = await register()
    await auth.http.delete(f"/clients/{client['client_id']}", headers=admin)
    for client_id in ("unknown", client["client_id"]):
        for answer in (
            await auth.http.get(f"/clients/{client_id}", headers=admin),
            await auth.http.delete(f"/clients/{client_id}", headers=admin),
            await auth.http.post(f"/clients/{client_id}/secret", headers=admin),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "client_not_found")


async def test_clients_come_in_pages(auth: Auth, admin: dict[str, str], register: Register) -> None:
    client_ids = [(await register(name=f"Client {number}"))["client_id"] for number in range(3)]
    first = (await auth.http.get("/clients?limit=2", headers=admin)).json()
    rest = (await auth.http.get(f"/clients?limit=2&cursor={first['next_cursor']}", headers=admin)).json()
    assert [item["client_id"] for item in (*first["items"], *rest["items"])] == client_ids[::-1]


@pytest.mark.parametrize("role", ["user", "staff"])
async def test_only_administrators_manage_clients(auth: Auth, role: str) -> None:
    headers = bearer(await auth.sign_in(auth.users.add("ada@example.com", role=role)))
    answer = await auth.http.post("/clients", content="{", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (await auth.http.get("/clients", headers=headers)).status_code == 403
    assert (await auth.http.get("/clients/x", headers=headers)).status_code == 403
    assert (await auth.http.get("/clients", headers=await auth.service_token())).status_code == 403
    assert (await auth.http.get("/clients")).status_code == 401


async def test_an_administrators_narrowed_token_cannot_manage_clients(auth: Auth) -> None:
    """Otherwise it could create a client with the scopes that it lacks, and use those."""
    root = auth.users.add("root@example.com", role="admin")
    narrow = bearer(await auth.sign_in(root, scope="orders:read"))
    for method, path in (("POST", "/clients"), ("GET", "/clients"), ("DELETE", "/clients/x")):
        answer = await auth.http.request(method, path, headers=narrow)
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


async def test_an_invalid_registration_is_refused(auth: Auth, admin: dict[str, str], subtests: pytest.Subtests) -> None:
    wrong = [
        {},
        REPORTS | {"name": ""},
        REPORTS | {"name": " "},
        REPORTS | {"name": "n" * 101},
        REPORTS | {"name": "a\x00b"},
        REPORTS | {"name": "a\nb"},
        REPORTS | {"grant_types": []},
        REPORTS | {"grant_types": ["implicit"]},
        REPORTS | {"scopes": ["admin"]},
        REPORTS | {"client_id": "mine"},
    ]
    for body in wrong:
        with subtests.test(str(body)):
            assert (await auth.http.post("/clients", json=body, headers=admin)).status_code == 422


async def test_what_admins_do_with_clients_and_sessions_is_recorded_with_who_did_it(
    auth: Auth, database: Database, admin: dict[str, str], register: Register
) -> None:
    root, ada = auth.users.people["root@example.com"], auth.users.add("ada@example.com")
    client = await register()
    path = f"/clients/{client['client_id']}"
    tokens = await auth.sign_in(ada)
    for method, target, body in (
        ("PATCH", path, {"name": "Better reports"}),
        ("POST", f"{path}/secret", None),
        ("DELETE", path, None),
        ("DELETE", f"/sessions/{sid(tokens)}?user_id={ada.user_id}", None),
        ("DELETE", f"/sessions?user_id={ada.user_id}", None),
        ("DELETE", "/sessions", None),  # one's own: no act of an administrator
    ):
        assert (await auth.http.request(method, target, json=body, headers=admin)).is_success
    expected = [
        ("client.registered", client["client_id"], "orders:read events:read"),
        ("client.changed", client["client_id"], "name"),
        ("client.secret_changed", client["client_id"], None),
        ("client.deleted", client["client_id"], None),
        ("session.ended", sid(tokens), f"of {ada.user_id}"),
        ("sessions.ended", str(ada.user_id), None),
    ]
    async with database.transaction() as session:
        rows = (await session.execute(text("SELECT * FROM audit_records ORDER BY id"))).mappings().all()
    assert [(row["action"], row["subject"], row["detail"]) for row in rows] == expected
    assert {row["actor"] for row in rows} == {str(root.user_id)}
    assert all(row["request_id"] for row in rows)
    acts = [data for kind, _, data in await events(database) if kind == "auth.audit.recorded.v1"]
    assert acts == [{name: row[name] for name in acts[0]} for row in rows]
    assert client["client_secret"] not in str(acts)


async def test_new_clients_and_secrets_need_a_recent_sign_in(
    auth: Auth, register: Register, database: Database
) -> None:
    """A stolen access token, or a stolen refresh token, does not become a client that outlives it."""
    client = await register()
    root = auth.users.people["root@example.com"]
    session = await auth.sign_in(root)
    async with database.transaction() as transaction:
        await transaction.execute(
            text("UPDATE sessions SET authenticated_at = authenticated_at - interval '301 seconds'")
        )
    old = bearer((await auth.refresh(session["refresh_token"])).json())
    paths = {"/clients": REPORTS, f"/clients/{client['client_id']}/secret": None}
    for path, body in paths.items():
        answer = await auth.http.post(path, json=body, headers=old)
        assert (answer.status_code, answer.json()["code"]) == (401, "insufficient_user_authentication")
        assert 'max_age="300"' in answer.headers["WWW-Authenticate"]
    listed = await auth.http.get("/clients", headers=old)
    assert [row["client_id"] for row in listed.json()["items"]] == [client["client_id"]]
    fresh = bearer(await auth.sign_in(root))
    for path, body in paths.items():
        assert (await auth.http.post(path, json=body, headers=fresh)).status_code == 201
