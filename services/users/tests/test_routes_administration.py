"""Accounts as admins see and change them, over HTTP."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest


async def test_ones_own_account_is_found_by_id_and_anothers_is_404(world: Any) -> None:
    person, other = await world.sign_up(), await world.sign_up()
    assert (await world.public.get(f"/users/{person['id']}", headers=world.bearer(person))).json() == person
    assert (await world.public.get(f"/users/{other['id']}", headers=world.bearer(person))).status_code == 404
    staff = world.tokens.bearer(person["id"], roles=("staff",))
    assert (await world.public.get(f"/users/{other['id']}", headers=staff)).status_code == 404
    assert (await world.public.get(f"/users/{other['id']}", headers=world.bearer(admin=True))).json() == other
    assert (await world.public.get(f"/users/{uuid4()}", headers=world.bearer(admin=True))).status_code == 404
    assert (await world.public.get("/users/x", headers=world.bearer(admin=True))).status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/users", None),
        ("PATCH", "/users/{id}", {"role": "admin"}),
        ("POST", "/users/{id}/deactivate", None),
        ("POST", "/users/{id}/reactivate", None),
    ],
)
async def test_what_admins_do_is_403_for_others_before_the_body_is_looked_at(
    world: Any, method: str, path: str, body: Any
) -> None:
    person = await world.sign_up()
    path = path.format(id=person["id"])
    for roles in (("user",), ("staff",)):
        headers = world.tokens.bearer(person["id"], roles=roles)
        assert (await world.public.request(method, path, json=body, headers=headers)).status_code == 403
        assert (await world.public.request(method, path, content=b"{", headers=headers)).status_code == 403
    assert (await world.public.request(method, path, json=body)).status_code == 401


async def test_admins_list_accounts_newest_first_page_by_page(world: Any) -> None:
    people = [await world.sign_up() for _ in range(5)]
    seen: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await world.public.get(f"/users?limit=2{cursor}", headers=world.bearer(admin=True))
        seen += answer.json()["items"]
        cursor = f"&cursor={following}" if (following := answer.json()["next_cursor"]) else None
    assert seen == people[::-1]
    assert (await world.public.get("/users?limit=0", headers=world.bearer(admin=True))).status_code == 422
    answer = await world.public.get("/users?cursor=nonsense", headers=world.bearer(admin=True))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_admins_find_accounts_by_address_role_and_status(world: Any) -> None:
    person, admin = await world.sign_up(), await world.admin()
    headers = world.bearer(admin, admin=True)
    await world.public.post(f"/users/{person['id']}/deactivate", headers=headers)

    async def found(query: str) -> list[str]:
        return [item["id"] for item in (await world.public.get(f"/users?{query}", headers=headers)).json()["items"]]

    assert await found(f"email={person['email'].upper()}") == [person["id"]]
    assert await found("role=admin") == [admin["id"]]
    assert await found("status=deactivated") == [person["id"]]
    assert await found("status=active&role=user") == []
    assert (await world.public.get("/users?role=king", headers=headers)).status_code == 422


async def test_an_admin_gives_a_role_once(world: Any) -> None:
    person, admin = await world.sign_up(), await world.admin()
    for _ in range(2):
        answer = await world.public.patch(
            f"/users/{person['id']}", json={"role": "staff"}, headers=world.bearer(admin, admin=True)
        )
        assert (answer.status_code, answer.json()["role"]) == (200, "staff")
    [_, event] = await world.events(person["id"])
    data = {"user_id": person["id"], "role": "staff"}
    assert event == {"type": "users.user.role_changed.v1", "version": 2, "data": data}


async def test_deactivating_and_reactivating_record_one_event_each(world: Any) -> None:
    person, admin = await world.sign_up(), await world.admin()
    for action, status in (("deactivate", "deactivated"), ("reactivate", "active")):
        for _ in range(2):
            answer = await world.public.post(f"/users/{person['id']}/{action}", headers=world.bearer(admin, admin=True))
            assert (answer.status_code, answer.json()["status"]) == (200, status)
    types = [event["type"] for event in await world.events(person["id"])]
    assert types[1:] == ["users.user.deactivated.v1", "users.user.reactivated.v1"]


async def test_the_last_admin_can_be_neither_demoted_nor_deactivated_nor_erased(world: Any) -> None:
    admin, retired = await world.admin(), await world.admin()
    headers = world.bearer(admin, admin=True)
    assert (await world.public.post(f"/users/{retired['id']}/deactivate", headers=headers)).status_code == 200
    answers = [
        await world.public.patch(f"/users/{admin['id']}", json={"role": "user"}, headers=headers),
        await world.public.post(f"/users/{admin['id']}/deactivate", headers=headers),
        await world.public.delete("/me", headers=headers),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "last_admin")] * 3
    # Allowed: a change that leaves the role as it is, and one of an admin who is not active.
    assert (await world.public.patch(f"/users/{admin['id']}", json={"role": "admin"}, headers=headers)).is_success
    assert (await world.public.patch(f"/users/{retired['id']}", json={"role": "user"}, headers=headers)).is_success


@pytest.mark.parametrize("repetition", range(5))
async def test_of_two_admins_who_demote_each_other_at_once_one_stays(world: Any, repetition: int) -> None:
    one, two = await world.admin(), await world.admin()

    async def demote(actor: Any, target: Any) -> int:
        answer = await world.public.patch(
            f"/users/{target['id']}", json={"role": "user"}, headers=world.bearer(actor, admin=True)
        )
        return int(answer.status_code)

    statuses = await asyncio.gather(demote(one, two), demote(two, one))
    assert sorted(statuses) == [200, 409]
    assert len(await world.rows("SELECT id FROM users WHERE role = 'admin'")) == 1


async def test_admins_who_demote_deactivate_and_leave_all_at_once_leave_one(world: Any) -> None:
    admins = [await world.admin() for _ in range(6)]

    async def leave(number: int, admin: Any) -> int:
        headers = world.bearer(admin, admin=True)
        match number % 3:
            case 0:
                answer = await world.public.patch(f"/users/{admin['id']}", json={"role": "staff"}, headers=headers)
            case 1:
                answer = await world.public.post(f"/users/{admin['id']}/deactivate", headers=headers)
            case _:
                answer = await world.public.delete("/me", headers=headers)
        return int(answer.status_code)

    statuses = await asyncio.gather(*(leave(number, admin) for number, admin in enumerate(admins)))
    assert sorted(status // 100 for status in statuses) == [2] * 5 + [4]
    assert statuses.count(409) == 1


async def test_what_admins_do_is_recorded_with_who_did_it_and_what_changes_nothing_is_not(world: Any) -> None:
    person, root = await world.sign_up(), await world.admin()
    path = f"/users/{person['id']}"
    for number, (method, suffix, body) in enumerate(
        [("PATCH", "", {"role": "staff"}), ("POST", "/deactivate", None), ("POST", "/reactivate", None)] * 2
    ):
        headers = world.bearer(root, admin=True) | {"X-Request-ID": f"act-{number}"}
        answer = await world.public.request(method, path + suffix, json=body, headers=headers)
        assert answer.status_code == 200
    await world.public.patch(path, json={"role": "admin"}, headers=world.bearer(person))
    expected = [
        {"actor": root["id"], "action": action, "subject": person["id"], "detail": detail, "request_id": request_id}
        for action, detail, request_id in (
            ("user.role_changed", "user to staff", "act-0"),
            ("user.deactivated", None, "act-1"),
            ("user.reactivated", None, "act-2"),
            ("user.deactivated", None, "act-4"),
            ("user.reactivated", None, "act-5"),
        )
    ]
    columns = "actor, action, subject, detail, request_id"
    assert await world.rows(f"SELECT {columns} FROM audit_records ORDER BY id") == expected  # noqa: S608
    recorded = await world.rows("SELECT data, version FROM outbox WHERE type = 'users.audit.recorded.v1' ORDER BY id")
    assert recorded == [{"data": act, "version": 1} for act in expected]
