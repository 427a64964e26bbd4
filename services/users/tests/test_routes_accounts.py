"""Sign-up and people's own accounts, over HTTP."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

FIELDS = {"id", "name", "email", "email_verified", "pending_email", "role", "status", "age", "created_at", "updated_at"}


async def test_signing_up_answers_201_with_the_account_and_where_it_is(world: Any) -> None:
    body = {"name": "Ann", "email": "ann@example.com", "password": world.password, "age": 34}
    answer = await world.public.post("/users", json=body)
    assert answer.status_code == 201
    person = answer.json()
    assert answer.headers["Location"] == f"/users/{person['id']}"
    assert set(person) == FIELDS
    given = {"name": "Ann", "email": "ann@example.com", "age": 34}
    assert person.items() >= (given | {"email_verified": False, "role": "user", "status": "active"}).items()
    assert person["created_at"] == person["updated_at"]
    assert person["created_at"].endswith("Z")


async def test_signing_up_records_the_event_in_the_same_transaction(world: Any) -> None:
    person = await world.sign_up(name="Ann", email="ann@example.com")
    data = {"user_id": person["id"], "name": "Ann", "email": "ann@example.com", "role": "user", "send_welcome": False}
    assert await world.events(person["id"]) == [{"type": "users.user.registered.v1", "version": 1, "data": data}]


@pytest.mark.parametrize(
    ("query", "welcome"), [("", False), ("?send_welcome=true", True), ("?send_welcome=false", False)]
)
async def test_a_query_parameter_says_whether_a_welcome_mail_is_sent(world: Any, query: str, welcome: bool) -> None:
    body = {"name": "Ann", "email": "ann@example.com", "password": world.password}
    answer = await world.public.post(f"/users{query}", json=body)
    [event] = await world.events(answer.json()["id"])
    assert event["data"]["send_welcome"] is welcome


async def test_a_query_parameter_of_the_wrong_type_is_422_and_creates_nothing(world: Any) -> None:
    body = {"name": "Ann", "email": "ann@example.com", "password": world.password}
    answer = await world.public.post("/users?send_welcome=perhaps", json=body)
    assert answer.status_code == 422
    assert await world.rows("SELECT id FROM users") == []


async def test_an_address_that_differs_in_case_only_is_taken(world: Any) -> None:
    await world.sign_up(email="ann@example.com")
    body = {"name": "Eve", "email": "Ann@Example.COM", "password": world.password}
    answer = await world.public.post("/users", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")


async def test_of_twenty_sign_ups_with_one_address_at_once_one_succeeds(world: Any) -> None:
    body = {"name": "Ann", "email": "ann@example.com", "password": world.password}
    answers = await asyncio.gather(*(world.public.post("/users", json=body) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"email_taken"}
    assert len(await world.rows("SELECT id FROM outbox")) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": ""}, "string_too_short"),
        ({"name": " \u200d "}, "person_name"),
        ({"name": "a" * 101}, "string_too_long"),
        ({"name": "Ann\r\nBcc: all@example.com"}, "person_name"),
        ({"name": None}, "string_type"),
        ({"email": "no-at-sign"}, "email_address"),
        ({"email": "ann@example"}, "email_address"),
        ({"email": "аnn@example.com"}, "email_address"),
        ({"email": "a" * 250 + "@example.com"}, "string_too_long"),
        ({"password": "short"}, "too_short"),
        ({"password": "x" * 129}, "too_long"),
        ({"password": 123456789012}, "string_type"),
        ({"password": "password1234"}, "common_password"),
        ({"password": "PassWord1234"}, "common_password"),
        ({"password": "ann.example.com!"}, "own_words"),
        ({"age": 0}, "greater_than_equal"),
        ({"age": 150}, "less_than_equal"),
        ({"age": "34"}, "int_type"),
        ({"age": True}, "int_type"),
        ({"age": 33.5}, "int_type"),
        ({"role": "admin"}, "extra_forbidden"),
        ({"name": "Ann\x00"}, "unstorable_text"),
        ({"name": "Ann\ud800"}, "unstorable_text"),
    ],
)
async def test_a_sign_up_that_does_not_validate_is_422_and_names_the_field(
    world: Any, change: dict[str, Any], code: str
) -> None:
    body = {"name": "Ann", "email": "ann@example.com", "password": world.password} | change
    answer = await world.public.post("/users", content=_json(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    [fault] = answer.json()["errors"]
    assert (fault["loc"][-1], fault["code"]) == (next(iter(change)), code)
    assert "1234" not in answer.text
    assert await world.rows("SELECT id FROM users") == []


async def test_a_missing_field_is_422(world: Any) -> None:
    answer = await world.public.post("/users", json={"name": "Ann"})
    assert answer.status_code == 422
    assert {fault["loc"][-1] for fault in answer.json()["errors"]} == {"email", "password"}


async def test_an_account_can_have_no_age(world: Any) -> None:
    assert (await world.sign_up())["age"] is None


async def test_the_password_is_nowhere_but_in_its_argon2id_hash(world: Any) -> None:
    await world.sign_up()
    [row] = await world.rows("SELECT password_hash FROM users")
    assert row["password_hash"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert world.password not in str(await world.rows("SELECT * FROM outbox"))


async def test_me_is_the_account_of_the_bearer(world: Any) -> None:
    person, _ = await world.sign_up(), await world.sign_up()
    answer = await world.public.get("/me", headers=world.bearer(person))
    assert answer.status_code == 200
    assert answer.json() == person


async def test_me_without_a_token_is_401_and_with_one_for_other_things_403(world: Any) -> None:
    answer = await world.public.get("/me")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    answer = await world.public.get("/me", headers=world.bearer(await world.sign_up(), scope="orders:read"))
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


async def test_me_without_an_account_is_404(world: Any) -> None:
    answer = await world.public.get("/me", headers=world.bearer())
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_profile_change_sets_the_given_fields_and_its_event_names_those_that_differ(world: Any) -> None:
    person = await world.sign_up(name="Ann", age=34)
    answer = await world.public.patch("/me", json={"name": " Anna ", "age": 34}, headers=world.bearer(person))
    assert answer.status_code == 200
    changed = answer.json()
    assert (changed["name"], changed["age"], changed["email"]) == ("Anna", 34, person["email"])
    assert changed["updated_at"] > person["updated_at"]
    event = (await world.events(person["id"]))[-1]
    data = {"user_id": person["id"], "name": "Anna", "email": person["email"], "changed": ["name"]}
    assert event == {"type": "users.user.updated.v1", "version": 2, "data": data}


async def test_a_profile_change_that_changes_nothing_is_no_event(world: Any) -> None:
    person = await world.sign_up(name="Ann")
    for body in ({}, {"name": "Ann"}):
        answer = await world.public.patch("/me", json=body, headers=world.bearer(person))
        assert (answer.status_code, answer.json()) == (200, person)
    assert len(await world.events(person["id"])) == 1


async def test_age_can_be_removed_but_name_and_address_cannot(world: Any) -> None:
    person = await world.sign_up(age=34)
    headers = world.bearer(person)
    assert (await world.public.patch("/me", json={"age": None}, headers=headers)).json()["age"] is None
    for body in ({"name": None}, {"email": None}, {"role": "admin"}, {"status": "active"}):
        assert (await world.public.patch("/me", json=body, headers=headers)).status_code == 422


async def test_accounts_that_use_an_address_and_leave_it_cannot_flood_its_mailbox(world: Any) -> None:
    """Welcomes and departures are mailed to an address that its user may not own."""
    victim, welcomes, statuses = "victim@example.com", 0, []
    for number in range(7):
        person = await world.sign_up(email=victim, send_welcome=True)
        [event] = await world.events(person["id"])
        welcomes += event["data"]["send_welcome"]
        left = await world.request_email(person, f"elsewhere{number}@example.com")
        statuses.append(left.status_code)
        await world.public.delete("/me", headers=world.bearer(person))
    assert (welcomes, statuses) == (5, [200] * 5 + [429] * 2)
    assert (left.json()["code"], left.headers["Retry-After"]) == ("address_changed_too_often", "720")
    await world.time_passes(720)
    person = await world.sign_up(email=victim)
    assert (await world.request_email(person, "elsewhere@example.com")).status_code == 200


async def test_twenty_profile_changes_at_once_number_their_events_without_a_gap(world: Any) -> None:
    person = await world.sign_up()
    headers = world.bearer(person)
    await asyncio.gather(*(world.public.patch("/me", json={"name": f"Ann {n}"}, headers=headers) for n in range(20)))
    assert [event["version"] for event in await world.events(person["id"])] == list(range(1, 22))


async def test_changing_the_password_spares_the_session_it_came_from(world: Any) -> None:
    person, session = await world.sign_up(), str(uuid4())
    body = {"current": world.password, "new": "another lighthouse 8"}
    answer = await world.public.put("/me/password", json=body, headers=world.bearer(person, sid=session))
    assert answer.status_code == 204
    event = (await world.events(person["id"]))[-1]
    data = {"user_id": person["id"], "except_session_id": session, "by": "change"}
    assert event == {"type": "users.user.password_changed.v1", "version": 2, "data": data}
    assert (await world.log_in(person["email"])).status_code == 401
    assert (await world.log_in(person["email"], "another lighthouse 8")).status_code == 200


async def test_a_wrong_current_password_is_403_and_changes_nothing(world: Any) -> None:
    person = await world.sign_up()
    body = {"current": "not the password", "new": "another lighthouse 8"}
    answer = await world.public.put("/me/password", json=body, headers=world.bearer(person))
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_password")
    assert (await world.log_in(person["email"])).status_code == 200
    assert len(await world.events(person["id"])) == 1


async def test_a_weak_new_password_is_422(world: Any) -> None:
    person = await world.sign_up()
    body = {"current": world.password, "new": "password1234"}
    answer = await world.public.put("/me/password", json=body, headers=world.bearer(person))
    assert (answer.status_code, answer.json()["code"]) == (422, "weak_password")
    assert answer.json()["errors"][0]["loc"] == ["body", "new"]


async def test_a_session_does_not_allow_guessing_the_password(world: Any) -> None:
    person = await world.sign_up()
    statuses = []
    for _ in range(15):
        body = {"current": "not the password", "new": "another lighthouse 8"}
        answer = await world.public.put("/me/password", json=body, headers=world.bearer(person))
        statuses.append(answer.status_code)
    assert statuses == [403] * 10 + [429] * 5
    assert (await world.log_in(person["email"])).status_code == 200


async def test_of_two_password_changes_at_once_one_succeeds(world: Any) -> None:
    person = await world.sign_up()
    new = ["another lighthouse 8", "a third lighthouse 9"]
    answers = await asyncio.gather(
        *(
            world.public.put("/me/password", json={"current": world.password, "new": one}, headers=world.bearer(person))
            for one in new
        )
    )
    assert sorted(answer.status_code for answer in answers) == [204, 403]
    held = new[[answer.status_code for answer in answers].index(204)]
    assert (await world.log_in(person["email"], held)).status_code == 200


def _json(body: dict[str, Any]) -> bytes:
    """As a client may send it: Python's own encoder writes a lone surrogate as an escape."""
    return json.dumps(body).encode()
