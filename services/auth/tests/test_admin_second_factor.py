"""Administrators without a second factor are advised to add one, and have no rights where one is required."""

from collections.abc import MutableMapping
from typing import Any

from auth.settings import Settings

from .conftest import Auth, Users, serving
from .test_sessions import bearer


async def may_administer(auth: Auth, tokens: dict[str, Any]) -> bool:
    answer = await auth.http.get("/clients", headers=bearer(tokens))
    assert answer.status_code in (200, 403)
    return answer.status_code == 200


async def test_by_default_it_is_advised(auth: Auth, logs: list[MutableMapping[str, Any]]) -> None:
    root = auth.users.add("root@example.com", role="admin")
    tokens = await auth.sign_in(root)
    assert tokens["second_factor"] == "advised"
    assert await may_administer(auth, tokens)
    safe, ada = auth.users.add("safe@example.com", role="admin", code="123456"), auth.users.add("ada@example.com")
    assert "second_factor" not in await auth.sign_in(safe, otp="123456")
    assert "second_factor" not in await auth.sign_in(ada)
    warned = [line for line in logs if line["event"] == "administrator without a second factor"]
    assert [(line["user_id"], line["log_level"]) for line in warned] == [(str(root.user_id), "warning")]


async def test_where_it_is_required_a_session_without_one_has_no_rights_and_can_add_one(
    settings: Settings, users: Users
) -> None:
    async with serving(settings.model_copy(update={"admin_second_factor": "required"}), users) as auth:
        root = users.add("root@example.com", role="admin")
        tokens = await auth.sign_in(root)
        assert tokens["second_factor"] == "required"
        refreshed = (await auth.refresh(tokens["refresh_token"])).json()
        for each in (tokens, refreshed):
            assert not await may_administer(auth, each)
            principal = await auth.principal(each["access_token"], "users")
            assert (principal.roles, "account" in principal.scopes) == (frozenset(), True)
        root.code = "123456"
        assert not await may_administer(auth, (await auth.refresh(refreshed["refresh_token"])).json())
        safe = await auth.sign_in(root, otp="123456")
        assert "second_factor" not in safe
        assert await may_administer(auth, safe)
        assert await may_administer(auth, (await auth.refresh(safe["refresh_token"])).json())
        staff = await auth.sign_in(users.add("staff@example.com", role="staff"))
        assert (await auth.principal(staff["access_token"])).roles == {"staff"}
