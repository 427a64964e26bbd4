"""Refresh rotation: a lost response ends no session, a stolen token always ends one."""

import asyncio
from datetime import timedelta
from typing import Any

import jwt
import pytest
from pydantic import SecretStr
from sqlalchemy import text, update

from auth.models import Session
from auth.settings import Settings
from common.db.database import Database
from common.security.tokens import InvalidToken
from common.settings import resource

from .conftest import Auth, Users, serving


async def events(database: Database) -> list[tuple[str, int, dict[str, Any]]]:
    """The events in the outbox: type, version, data."""
    async with database.transaction() as session:
        rows = await session.execute(text("SELECT type, version, data FROM outbox ORDER BY id"))
        return [(row.type, row.version, row.data) for row in rows]


async def make_older(database: Database, by: timedelta) -> None:
    """Moves all times of all sessions into the past."""
    async with database.transaction() as session:
        values = {
            column: column - by
            for column in (
                Session.created_at,
                Session.authenticated_at,
                Session.last_used_at,
                Session.idle_until,
                Session.ends_at,
                Session.rotated_at,
            )
        }
        await session.execute(update(Session).values(values))


async def refused(auth: Auth, refresh_token: str, **form: str) -> bool:
    answer = await auth.refresh(refresh_token, **form)
    return (answer.status_code, answer.json().get("error")) == (400, "invalid_grant")


async def test_a_refresh_continues_the_session(auth: Auth) -> None:
    first = await auth.sign_in(auth.users.add("ada@example.com"))
    second = (await auth.refresh(first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["scope"] == first["scope"]
    before, after = (jwt.decode(t["access_token"], options={"verify_signature": False}) for t in (first, second))
    for claim in ("sub", "sid", "auth_time", "aud", "client_id", "roles"):
        assert before[claim] == after[claim]
    assert before["jti"] != after["jti"]
    assert len(auth.users.requests) == 1


async def test_fifty_parallel_refreshes_have_one_child_and_the_family_lives(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    answers = await asyncio.gather(*(auth.refresh(tokens["refresh_token"]) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    children = {answer.json()["refresh_token"] for answer in answers}
    assert len(children) == 1
    assert (await auth.refresh(children.pop())).status_code == 200


async def test_a_refresh_whose_response_was_lost_can_be_repeated(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    lost = (await auth.refresh(tokens["refresh_token"])).json()
    again = (await auth.refresh(tokens["refresh_token"])).json()
    assert again["refresh_token"] == lost["refresh_token"]


async def test_a_refresh_can_be_repeated_at_another_replica(auth: Auth, settings: Settings, users: Users) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    lost = (await auth.refresh(tokens["refresh_token"])).json()
    async with serving(settings, users) as other:
        again = (await other.refresh(tokens["refresh_token"])).json()
        assert again["refresh_token"] == lost["refresh_token"]


async def test_a_replay_after_the_window_ends_the_family(auth: Auth, database: Database) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    child = (await auth.refresh(tokens["refresh_token"])).json()
    await make_older(database, timedelta(seconds=11))
    assert await refused(auth, tokens["refresh_token"])
    assert await refused(auth, child["refresh_token"])
    types = [(event_type, version) for event_type, version, _ in await events(database) if ".keys." not in event_type]
    assert types == [
        ("auth.session.started.v1", 1),
        ("auth.session.revoked.v1", 2),
        ("auth.token_reuse.detected.v1", 3),
    ]
    revoked = (await events(database))[-2][2]
    assert revoked["reason"] == "token_reuse"
    assert revoked["session_id"] == jwt.decode(child["access_token"], options={"verify_signature": False})["sid"]


async def test_a_replay_of_a_grandparent_ends_the_family_at_once(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    child = (await auth.refresh(tokens["refresh_token"])).json()
    grandchild = (await auth.refresh(child["refresh_token"])).json()
    assert await refused(auth, tokens["refresh_token"])
    assert await refused(auth, grandchild["refresh_token"])


async def test_a_parent_cannot_be_repeated_once_its_child_was_used(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    child = (await auth.refresh(tokens["refresh_token"])).json()
    await auth.refresh(child["refresh_token"])
    assert await refused(auth, tokens["refresh_token"])


async def test_a_forged_token_does_not_end_the_session(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    token = tokens["refresh_token"]
    forged = token[:-4] + ("AAAA" if not token.endswith("AAAA") else "BBBB")
    assert await refused(auth, forged)
    assert (await auth.refresh(token)).status_code == 200


async def test_a_malformed_refresh_token_is_refused(auth: Auth) -> None:
    for token in ("x", "wbr_", "wbr_" + "A" * 70, "wbr_" + "é" * 70, "wbr_" + "!" * 70):
        assert await refused(auth, token)


async def test_a_session_ends_after_fourteen_days_without_a_refresh(auth: Auth, database: Database) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    await make_older(database, timedelta(days=13, hours=23))
    child = (await auth.refresh(tokens["refresh_token"])).json()
    await make_older(database, timedelta(days=13, hours=23))
    assert (await auth.refresh(child["refresh_token"])).status_code == 200
    await make_older(database, timedelta(days=14, seconds=1))
    assert await refused(auth, child["refresh_token"])


async def test_a_session_ends_after_thirty_days_even_if_it_is_used(auth: Auth, database: Database) -> None:
    refresh_token = (await auth.sign_in(auth.users.add("ada@example.com")))["refresh_token"]
    for _ in range(2):
        await make_older(database, timedelta(days=13))
        refresh_token = (await auth.refresh(refresh_token)).json()["refresh_token"]
    await make_older(database, timedelta(days=4, seconds=1))
    assert await refused(auth, refresh_token)


async def test_a_refresh_does_not_change_auth_time(auth: Auth, database: Database) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    await make_older(database, timedelta(hours=1))
    child = (await auth.refresh(tokens["refresh_token"])).json()
    claims = jwt.decode(child["access_token"], options={"verify_signature": False})
    assert 3590 < claims["iat"] - claims["auth_time"] < 3610


async def test_another_clients_refresh_token_is_refused_and_stays_valid(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    admin = await auth.sign_in(auth.users.add("root@example.com", role="admin"))
    registered = await auth.http.post(
        "/clients",
        json={"name": "other", "grant_types": ["refresh_token"], "scopes": []},
        headers={"Authorization": f"Bearer {admin['access_token']}"},
    )
    other = {name: registered.json()[name] for name in ("client_id", "client_secret")}
    assert await refused(auth, tokens["refresh_token"], **other)
    assert (await auth.refresh(tokens["refresh_token"])).status_code == 200


async def test_scope_and_resource_narrow_one_access_token_only(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    narrow = (await auth.refresh(tokens["refresh_token"], scope="orders:read", resource=resource("orders"))).json()
    assert narrow["scope"] == "orders:read"
    with pytest.raises(InvalidToken):
        await auth.principal(narrow["access_token"], "users")
    wide = (await auth.refresh(narrow["refresh_token"])).json()
    assert wide["scope"] == tokens["scope"]


async def test_a_refresh_for_more_than_was_granted_is_refused_and_uses_up_no_token(
    auth: Auth, database: Database
) -> None:
    ada = auth.users.add("ada@example.com")
    tokens = await auth.sign_in(ada, scope="orders:read", resource=resource("orders"))
    wider = await auth.refresh(tokens["refresh_token"], scope="orders:write")
    assert (wider.status_code, wider.json()["error"]) == (400, "invalid_scope")
    elsewhere = await auth.refresh(tokens["refresh_token"], resource=resource("users"))
    assert (elsewhere.status_code, elsewhere.json()["error"]) == (400, "invalid_target")
    await make_older(database, timedelta(seconds=11))
    assert (await auth.refresh(tokens["refresh_token"])).status_code == 200


async def test_a_new_refresh_token_secret_ends_no_session(auth: Auth, settings: Settings, users: Users) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    changed = settings.model_copy(update={"refresh_token_secret": SecretStr("c" * 44)})
    async with serving(changed, users) as other:
        child = (await other.refresh(tokens["refresh_token"])).json()
        assert (await other.refresh(child["refresh_token"])).status_code == 200


async def test_no_token_and_no_address_is_stored_in_clear(auth: Auth, database: Database) -> None:
    first = await auth.sign_in(auth.users.add("ada@example.com"))
    second = (await auth.refresh(first["refresh_token"])).json()
    async with database.transaction() as session:
        rows = await session.execute(
            text("SELECT sessions::text AS row FROM sessions UNION ALL SELECT outbox::text FROM outbox")
        )
        stored = " ".join(rows.scalars())
    for tokens in (first, second):
        for secret in (tokens["refresh_token"], tokens["access_token"], tokens["access_token"].split(".")[2]):
            assert secret not in stored
    assert "ada@example.com" not in stored
