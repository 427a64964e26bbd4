"""A person's sessions: listed, ended one by one, ended all at once."""

import jwt
import pytest

from auth.settings import Settings
from common.db.database import Database, new_id
from common.security.tokens import InvalidToken

from .conftest import Auth, Users, serving
from .test_refresh import events, refused


def bearer(tokens: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def sid(tokens: dict[str, str]) -> str:
    return str(jwt.decode(tokens["access_token"], options={"verify_signature": False})["sid"])


async def test_people_see_their_own_sessions_newest_first(auth: Auth) -> None:
    ada, bob = auth.users.add("ada@example.com"), auth.users.add("bob@example.com")
    auth.http.headers["User-Agent"] = "Old phone\x7f"
    old = await auth.sign_in(ada)
    auth.http.headers["User-Agent"] = "Browser"
    new = await auth.sign_in(ada)
    await auth.sign_in(bob)
    listed = (await auth.http.get("/sessions", headers=bearer(new))).json()["items"]
    assert [(item["id"], item["device"], item["current"]) for item in listed] == [
        (sid(new), "Browser", True),
        (sid(old), "Old phone", False),
    ]
    assert listed[0].keys() == {"id", "client_id", "amr", "device", "created_at", "last_used_at", "current"}


async def test_sessions_come_in_pages(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com")
    tokens = [await auth.sign_in(ada) for _ in range(3)]
    first = (await auth.http.get("/sessions?limit=2", headers=bearer(tokens[0]))).json()
    rest = (await auth.http.get(f"/sessions?limit=2&cursor={first['next_cursor']}", headers=bearer(tokens[0]))).json()
    assert [item["id"] for item in (*first["items"], *rest["items"])] == [sid(one) for one in reversed(tokens)]
    assert rest["next_cursor"] is None
    assert (await auth.http.get("/sessions?cursor=x", headers=bearer(tokens[0]))).json()["code"] == "invalid_cursor"


async def test_signing_out_ends_that_session_only(auth: Auth, database: Database) -> None:
    ada = auth.users.add("ada@example.com")
    here, there = await auth.sign_in(ada), await auth.sign_in(ada)
    assert (await auth.http.delete(f"/sessions/{sid(there)}", headers=bearer(here))).status_code == 204
    assert await refused(auth, there["refresh_token"])
    assert (await auth.http.get("/sessions", headers=bearer(there))).status_code == 401
    assert len((await auth.http.get("/sessions", headers=bearer(here))).json()["items"]) == 1
    event_type, version, data = (await events(database))[-1]
    assert (event_type, version) == ("auth.session.revoked.v1", 2)
    assert data == {
        "session_id": sid(there),
        "user_id": str(ada.user_id),
        "client_id": "web",
        "reason": "logout",
    }


async def test_signing_out_everywhere_ends_all(auth: Auth, database: Database) -> None:
    ada, bob = auth.users.add("ada@example.com"), auth.users.add("bob@example.com")
    here, there, other = await auth.sign_in(ada), await auth.sign_in(ada), await auth.sign_in(bob)
    assert (await auth.http.delete("/sessions", headers=bearer(here))).status_code == 204
    for tokens in (here, there):
        assert await refused(auth, tokens["refresh_token"])
        assert (await auth.http.get("/sessions", headers=bearer(tokens))).status_code == 401
    assert (await auth.http.get("/sessions", headers=bearer(other))).status_code == 200
    event_type, version, data = (await events(database))[-1]
    assert (event_type, version) == ("auth.subject.revoked.v1", 1)
    assert (data["subject"], data["min_session_version"], data["sessions_ended"]) == (str(ada.user_id), 2, True)
    again = await auth.sign_in(ada)
    assert (await auth.http.get("/sessions", headers=bearer(again))).status_code == 200


@pytest.mark.parametrize("whose", ["unknown", "bob's", "ended"])
async def test_a_session_that_is_not_ones_own_is_not_found(auth: Auth, whose: str) -> None:
    ada, bob = auth.users.add("ada@example.com"), auth.users.add("bob@example.com")
    here, ended, bobs = await auth.sign_in(ada), await auth.sign_in(ada), await auth.sign_in(bob)
    await auth.http.delete(f"/sessions/{sid(ended)}", headers=bearer(here))
    session_id = {"unknown": str(new_id()), "bob's": sid(bobs), "ended": sid(ended)}[whose]
    answer = await auth.http.delete(f"/sessions/{session_id}", headers=bearer(here))
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")
    assert (await auth.http.get("/sessions", headers=bearer(bobs))).status_code == 200


async def test_a_client_has_no_sessions(auth: Auth) -> None:
    assert (await auth.http.get("/sessions", headers=await auth.service_token())).status_code == 403


async def test_a_token_without_the_account_scope_can_neither_list_nor_end_sessions(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com")
    narrow, whole = await auth.sign_in(ada, scope="orders:read"), await auth.sign_in(ada)
    for method, path in (("GET", "/sessions"), ("DELETE", "/sessions"), ("DELETE", f"/sessions/{sid(whole)}")):
        answer = await auth.http.request(method, path, headers=bearer(narrow))
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
        assert 'scope="account"' in answer.headers["WWW-Authenticate"]
    assert (await auth.http.get("/sessions", headers=bearer(whole))).status_code == 200


async def test_sessions_need_a_token(auth: Auth) -> None:
    answer = await auth.http.get("/sessions")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (await auth.http.put("/sessions")).status_code == 405


async def test_the_snapshot_lists_revoked_sessions_and_subjects(auth: Auth) -> None:
    ada, bob = auth.users.add("ada@example.com"), auth.users.add("bob@example.com")
    adas, bobs = await auth.sign_in(ada), await auth.sign_in(bob)
    service = await auth.service_token()
    assert (await auth.internal.get("/internal/revocations", headers=service)).json() == {
        "sessions": [],
        "subjects": [],
    }
    await auth.http.delete(f"/sessions/{sid(adas)}", headers=bearer(adas))
    await auth.http.delete("/sessions", headers=bearer(bobs))
    snapshot = (await auth.internal.get("/internal/revocations", headers=service)).json()
    assert {"session_id": sid(adas)} in snapshot["sessions"]
    assert snapshot["subjects"] == [
        {
            "subject": str(bob.user_id),
            "min_session_version": 2,
            "except_session_id": None,
            "except_session_version": None,
        }
    ]


async def test_the_snapshot_is_for_services_only(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com", role="admin")
    tokens = await auth.sign_in(ada)
    answer = await auth.internal.get("/internal/revocations", headers=bearer(tokens))
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    assert (await auth.internal.get("/internal/revocations")).status_code == 401
    public = await auth.http.get("/internal/revocations", headers=await auth.service_token())
    assert public.status_code == 404


async def test_another_replica_refuses_a_revoked_token_at_once(auth: Auth, settings: Settings, users: Users) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    async with serving(settings, users) as other:
        assert (await other.http.get("/sessions", headers=bearer(tokens))).status_code == 200
        await auth.http.delete(f"/sessions/{sid(tokens)}", headers=bearer(tokens))
        assert (await other.http.get("/sessions", headers=bearer(tokens))).status_code == 401


async def test_auth_refuses_a_token_for_another_service(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com")
    tokens = await auth.sign_in(ada, resource="https://waybill.invalid/orders")
    assert (await auth.http.get("/sessions", headers=bearer(tokens))).status_code == 401
    with pytest.raises(InvalidToken):
        await auth.principal(tokens["access_token"], "auth")
