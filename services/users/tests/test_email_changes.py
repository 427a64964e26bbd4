"""A new address: asked for with the password, confirmed at the new one, undone at the old one."""

import asyncio
import time
from typing import Any

import pytest

NEW, PASSWORD = "new@example.com", "another lighthouse 8"


async def me(world: Any, person: Any) -> Any:
    return (await world.public.get("/me", headers=world.bearer(person))).json()


async def confirm(world: Any, token: str) -> Any:
    return await world.use("/email-changes/confirm", token)


async def revert(world: Any, token: str) -> Any:
    return await world.use("/email-changes/revert", token)


async def test_a_new_address_needs_a_recent_sign_in_and_the_password(world: Any) -> None:
    person, other = await world.sign_up(), await world.sign_up()
    right = {"email": NEW, "current_password": world.password}
    old = world.bearer(person, auth_time=int(time.time()) - 301)
    for headers, body, status, code in (
        (old, right, 401, "insufficient_user_authentication"),
        (old, {"email": NEW}, 401, "insufficient_user_authentication"),
        (world.bearer(person), {"email": NEW}, 422, "validation_error"),
        (world.bearer(person), right | {"current_password": "wrong"}, 403, "wrong_password"),
        (world.bearer(person), right | {"email": other["email"], "current_password": "wrong"}, 403, "wrong_password"),
        (world.bearer(person), right | {"email": other["email"]}, 409, "email_taken"),
    ):
        answer = await world.public.patch("/me", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        if status == 401:
            challenge = 'Bearer error="insufficient_user_authentication", max_age="300"'
            assert answer.headers["WWW-Authenticate"] == challenge
        if status == 422:
            assert answer.json()["errors"] == [
                {"loc": ["body", "current_password"], "msg": "Field required", "code": "missing"}
            ]
    assert await me(world, person) == person
    assert await world.links(person) == []
    assert (await world.public.patch("/me", json={"name": "Anna"}, headers=old)).status_code == 200


async def test_guesses_of_the_password_are_throttled_together_with_those_of_a_change_of_it(world: Any) -> None:
    person = await world.sign_up()
    answers = [await world.request_email(person, NEW, password="wrong") for _ in range(5)]
    for _ in range(5):
        body = {"current": "wrong", "new": PASSWORD}
        answers.append(await world.public.put("/me/password", json=body, headers=world.bearer(person)))
    answers += [await world.request_email(person, NEW) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [403] * 10 + [429] * 2


async def test_the_address_changes_when_the_link_that_was_mailed_to_it_is_used(world: Any) -> None:
    person = await world.sign_up()
    answer = await world.request_email(person, "New@Example.com")
    assert answer.json() == person | {"pending_email": NEW}
    assert len(await world.events(person["id"])) == 1
    purposes = {purpose: await world.links(person, purpose) for purpose in ("revert_email", "confirm_email")}
    issued = {purpose: (await world.issue(link)).json() for purpose, [link] in purposes.items()}
    assert {purpose: link["email"] for purpose, link in issued.items()} == {
        "revert_email": person["email"],
        "confirm_email": NEW,
    }
    assert (await world.log_in(person["email"])).status_code == 200

    assert await confirm(world, issued["confirm_email"]["token"]) == (204, None)
    changed = await me(world, person)
    assert (changed["email"], changed["email_verified"], changed["pending_email"]) == (NEW, True, None)
    updated, verified = (await world.events(person["id"]))[1:]
    data = {"user_id": person["id"], "name": "Ann", "email": NEW, "changed": ["email"]}
    assert updated == {"type": "users.user.updated.v1", "version": 2, "data": data}
    assert (verified["type"], verified["version"]) == ("users.user.email_verified.v1", 3)
    assert (await world.log_in(NEW)).status_code == 200
    assert (await world.log_in(person["email"])).status_code == 401
    assert await confirm(world, issued["confirm_email"]["token"]) == (400, "invalid_link")


async def test_the_last_request_counts_and_the_present_address_cancels_it(world: Any) -> None:
    person = await world.sign_up()
    await world.request_email(person, "first@example.com")
    first = await world.mailed(person, "confirm_email")
    await world.request_email(person, NEW)
    again = await world.request_email(person, NEW)
    assert again.json()["pending_email"] == NEW
    assert len(await world.links(person, "confirm_email")) == 2  # the repeated request mails nothing
    assert await confirm(world, first) == (400, "invalid_link")
    second = await world.mailed(person, "confirm_email")
    assert (await world.request_email(person, person["email"])).json()["pending_email"] is None
    assert await confirm(world, second) == (400, "invalid_link")
    assert (await me(world, person))["email"] == person["email"]


async def test_the_same_request_mails_again_once_its_link_is_too_old(world: Any) -> None:
    person = await world.sign_up()
    await world.request_email(person, NEW)
    for hours, mails in ((23, 1), (2, 2)):
        aged = "UPDATE secret_links SET requested_at = requested_at - make_interval(hours => :hours)"
        await world.execute(aged, hours=hours)
        assert (await world.request_email(person, NEW)).json()["pending_email"] == NEW
        assert len(await world.links(person, "confirm_email")) == mails
    assert await confirm(world, await world.mailed(person, "confirm_email")) == (204, None)
    assert (await me(world, person))["email"] == NEW


@pytest.mark.parametrize("change", ["password", "reset", "deactivated", "erased", "expired"])
async def test_a_request_is_void_after(world: Any, change: str) -> None:
    person = await world.sign_up()
    await world.request_email(person, NEW)
    token, back = await world.mailed(person, "confirm_email"), await world.mailed(person, "revert_email")
    headers = world.bearer(person)
    match change:
        case "password":
            body = {"current": world.password, "new": PASSWORD}
            await world.public.put("/me/password", json=body, headers=headers)
        case "reset":
            await world.public.post("/password-resets", json={"email": person["email"]})
            reset = await world.mailed(person, "reset_password")
            await world.use("/password-resets/confirm", reset, password=PASSWORD)
        case "deactivated":
            await world.public.post(f"/users/{person['id']}/deactivate", headers=world.bearer(admin=True))
        case "erased":
            await world.public.delete("/me", headers=headers)
        case _:
            await world.execute("UPDATE secret_link_tokens SET expires_at = expires_at - interval '24 hours'")
    assert await confirm(world, token) == (400, "invalid_link")
    if change in ("password", "reset"):
        assert (await me(world, person))["pending_email"] is None
    expected = (400, "invalid_link") if change in ("deactivated", "erased") else (204, None)
    assert await revert(world, back) == expected
    if change != "erased":
        [row] = await world.rows("SELECT email, pending_email FROM users")
        assert row["email"] == person["email"]


@pytest.mark.parametrize("took_effect", [True, False])
async def test_the_old_address_takes_the_account_back(world: Any, took_effect: bool) -> None:
    """Also from somebody who knows the password, has changed it since, and has moved on to yet another address."""
    person = await world.sign_up()
    await world.request_email(person, NEW)
    back = await world.mailed(person, "revert_email")
    taken = await world.mailed(person, "confirm_email")
    later = None
    if took_effect:
        assert await confirm(world, taken) == (204, None)
        body = {"current": world.password, "new": PASSWORD}
        assert (await world.public.put("/me/password", json=body, headers=world.bearer(person))).status_code == 204
        await world.request_email(person, "third@example.com", password=PASSWORD)
        later = await world.mailed(person, "revert_email")
        assert await confirm(world, await world.mailed(person, "confirm_email")) == (204, None)
    before = len(await world.events(person["id"]))
    assert await revert(world, back) == (204, None)
    mine = await me(world, person)
    assert (mine["email"], mine["email_verified"], mine["pending_email"]) == (person["email"], True, None)
    types = [event["type"].split(".")[2] for event in (await world.events(person["id"]))[before:]]
    assert types == [*(["updated"] if took_effect else []), "email_verified", "email_reverted"]
    [*_, last] = await world.events(person["id"])
    assert last["data"] == {"user_id": person["id"], "email": person["email"]}
    assert [event["version"] for event in await world.events(person["id"])] == list(range(1, before + len(types) + 1))
    for token in (taken, back, later):
        if token is not None:
            assert await revert(world, token) == (400, "invalid_link")
            assert await confirm(world, token) == (400, "invalid_link")


async def test_a_link_that_takes_an_address_back_is_good_for_seven_days(world: Any) -> None:
    person = await world.sign_up()
    await world.change_email(person, NEW)
    back = await world.mailed(person, "revert_email")
    [row] = await world.rows("SELECT max(expires_at - now()) AS left FROM secret_link_tokens")
    assert 6.9 < row["left"].total_seconds() / 86_400 <= 7
    await world.execute("UPDATE secret_link_tokens SET expires_at = now()")
    assert await revert(world, back) == (400, "invalid_link")


async def test_an_address_that_was_left_is_kept_for_its_owner_while_they_may_take_it_back(world: Any) -> None:
    """Else a thief of an account would take the address for another one, and the owner could not have it back."""
    person, thief = await world.sign_up(), await world.sign_up()
    await world.change_email(person, NEW)
    body = {"name": "Eve", "email": person["email"], "password": world.password}
    assert (await world.public.post("/users", json=body)).status_code == 409
    assert (await world.request_email(thief, person["email"])).status_code == 409
    assert (await world.change_email(person, person["email"]))["email"] == person["email"]
    assert (await world.request_email(thief, NEW)).status_code == 409
    await world.public.delete("/me", headers=world.bearer(person))
    assert (await world.request_email(thief, NEW)).status_code == 200


async def test_of_two_people_who_want_one_address_one_gets_it(world: Any) -> None:
    ann, bob = await world.sign_up(), await world.sign_up()
    tokens = []
    for person in (ann, bob):
        assert (await world.request_email(person, NEW)).status_code == 200
        tokens.append(await world.mailed(person, "confirm_email"))
    body = {"name": "Eve", "email": NEW, "password": world.password}
    outcomes = await asyncio.gather(
        *(confirm(world, token) for token in tokens * 3), world.public.post("/users", json=body)
    )
    statuses = sorted([status for status, _ in outcomes[:-1]] + [outcomes[-1].status_code])
    assert [status for status in statuses if status < 300] in ([201], [204])
    assert set(statuses) <= {201, 204, 400, 409}
    [owners] = await world.rows("SELECT count(*) AS n FROM users WHERE email = :email", email=NEW)
    assert owners["n"] == 1


async def test_confirming_reverting_and_erasing_at_once_leave_one_of_their_outcomes(world: Any) -> None:
    for _ in range(4):
        person = await world.sign_up()
        new = f"new-{person['email']}"
        await world.request_email(person, new)
        tokens = [await world.mailed(person, purpose) for purpose in ("confirm_email", "revert_email")]
        erase = world.public.delete("/me", headers=world.bearer(person))
        confirmed, reverted, erased = await asyncio.gather(confirm(world, tokens[0]), revert(world, tokens[1]), erase)
        assert (confirmed[0], reverted[0]) in ((204, 204), (400, 204), (204, 400), (400, 400))
        assert erased.status_code == 204
        versions = [event["version"] for event in await world.events(person["id"])]
        assert versions == list(range(1, len(versions) + 1))
        assert await world.rows("SELECT 1 FROM users WHERE id = :id", id=person["id"]) == []


async def test_a_revert_beats_a_confirmation_at_the_same_moment(world: Any) -> None:
    for _ in range(4):
        person = await world.sign_up()
        await world.request_email(person, f"new-{person['email']}")
        tokens = [await world.mailed(person, purpose) for purpose in ("confirm_email", "revert_email")]
        _, reverted = await asyncio.gather(confirm(world, tokens[0]), revert(world, tokens[1]))
        assert reverted == (204, None)
        assert (await me(world, person))["email"] == person["email"]


async def test_a_reset_frees_its_owner_from_a_throttle(world: Any) -> None:
    person, network = await world.sign_up(), "203.0.113.5"
    for _ in range(10):
        await world.log_in(person["email"], "wrong", network)
    await world.execute("UPDATE login_buckets SET level = 1000")
    assert (await world.log_in(person["email"], network=network)).status_code == 429
    await world.execute("DELETE FROM login_buckets WHERE level < 1000")
    link = await world.public.post(
        "/password-resets", json={"email": person["email"]}, headers={"X-Forwarded-For": network}
    )
    assert link.status_code == 202
    token = await world.mailed(person, "reset_password")
    answer = await world.public.post(
        "/password-resets/confirm",
        json={"token": token, "password": PASSWORD},
        headers={"X-Forwarded-For": network},
    )
    assert answer.status_code == 204
    assert (await world.log_in(person["email"], PASSWORD, network)).status_code == 200
    # From now on it is a network of the account's, which strangers' failures never block.
    await world.execute("UPDATE login_buckets SET level = 1000")
    assert (await world.log_in(person["email"], PASSWORD, network)).status_code == 200
