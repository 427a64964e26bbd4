"""Checking credentials for auth, and throttling of those who guess passwords."""

import asyncio
from typing import Any

import argon2
import pytest

WRONG = "not the password 1"


async def test_the_right_password_of_an_active_account_returns_the_account(world: Any) -> None:
    person = await world.sign_up()
    answer = await world.log_in(person["email"].upper())
    assert answer.status_code == 200
    assert answer.json() == {
        "user_id": person["id"],
        "role": "user",
        "status": "active",
        "version": 1,
        "amr": ["pwd"],
        "has_second_factor": False,
    }


async def test_unknown_wrong_and_deactivated_are_the_same_401(world: Any) -> None:
    person, gone = await world.sign_up(), await world.sign_up()
    await world.execute("UPDATE users SET status = 'deactivated' WHERE id = :id", id=gone["id"])
    answers = [
        await world.log_in(person["email"], WRONG),
        await world.log_in("nobody@example.com"),
        await world.log_in("not an address"),
        await world.log_in(gone["email"]),
        await world.log_in(gone["email"], WRONG),
        await world.log_in(person["email"], "short"),
        await world.log_in(person["email"], "x" * 1000),
    ]
    bodies = [answer.json() | {"request_id": None} for answer in answers]
    assert bodies == [bodies[0]] * len(bodies)
    assert (bodies[0]["status"], bodies[0]["code"]) == (401, "invalid_credentials")
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    named = [answer.headers.get("Waybill-Account") for answer in answers]
    assert named == [person["id"], None, None, gone["id"], gone["id"], person["id"], person["id"]]


async def test_a_throttled_sign_in_names_the_account_if_there_is_one(world: Any) -> None:
    person = await world.sign_up()
    for email, account in ((person["email"], person["id"]), ("nobody@example.com", None)):
        for _ in range(10):
            await world.log_in(email, WRONG)
        refused = await world.log_in(email)
        assert (refused.status_code, refused.headers.get("Waybill-Account")) == (429, account)


async def test_it_is_for_services_with_the_scope_and_on_the_internal_port_only(world: Any) -> None:
    body = {"email": "ann@example.com", "password": world.password}
    path = "/internal/credentials/verify"
    assert (await world.internal.post(path, json=body)).status_code == 401
    other = world.tokens.mint_service("notifier", scope="links:issue")
    answer = await world.internal.post(path, json=body, headers={"Authorization": f"Bearer {other}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    right = {"Authorization": f"Bearer {world.tokens.mint_service('auth', scope='credentials:verify')}"}
    assert (await world.public.post(path, json=body, headers=right)).status_code == 404
    assert (await world.internal.get("/me", headers=world.bearer())).status_code == 404


@pytest.mark.parametrize("network", [None, "unknown", "the moon"])
async def test_a_sign_in_from_an_unknown_network_succeeds(world: Any, network: str | None) -> None:
    person = await world.sign_up()
    assert (await world.log_in(person["email"], network=network)).status_code == 200


async def test_a_hash_of_other_parameters_is_renewed_at_sign_in_without_an_event(world: Any) -> None:
    person = await world.sign_up()
    old = argon2.PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(world.password)
    await world.execute("UPDATE users SET password_hash = :old", old=old)
    assert (await world.log_in(person["email"], WRONG)).status_code == 401
    assert await world.rows("SELECT password_hash FROM users") == [{"password_hash": old}]
    assert (await world.log_in(person["email"])).json()["version"] == 1
    [row] = await world.rows("SELECT password_hash FROM users")
    assert row["password_hash"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert (await world.log_in(person["email"])).status_code == 200
    assert len(await world.events(person["id"])) == 1


async def test_four_failures_from_four_networks_are_not_throttled(world: Any) -> None:
    person = await world.sign_up()
    for number in range(4):
        assert (await world.log_in(person["email"], WRONG, f"198.51.100.{number}")).status_code == 401
    assert (await world.log_in(person["email"], network="198.51.100.9")).status_code == 200


@pytest.mark.parametrize("known", [True, False])
async def test_eighty_failures_from_one_network_are_throttled_whether_or_not_the_account_exists(
    world: Any, known: bool
) -> None:
    email = (await world.sign_up())["email"] if known else "nobody@example.com"
    answers = [await world.log_in(email, WRONG) for _ in range(80)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:10] == [401] * 10
    assert statuses.count(429) >= 60
    first = next(answer for answer in answers if answer.status_code == 429)
    assert first.json()["code"] == "too_many_attempts"
    assert 1 <= int(first.headers["Retry-After"]) <= 15
    assert (await world.log_in(email)).status_code == 429


async def test_eighty_failures_at_once_are_throttled_too(world: Any) -> None:
    person = await world.sign_up()
    answers = await asyncio.gather(*(world.log_in(person["email"], WRONG) for _ in range(80)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 20


async def test_many_successes_at_once_are_not_throttled(world: Any) -> None:
    person = await world.sign_up()
    answers = await asyncio.gather(*(world.log_in(person["email"]) for _ in range(40)))
    assert {answer.status_code for answer in answers} == {200}


async def test_a_success_resets_the_failures_before_it(world: Any) -> None:
    person = await world.sign_up()
    for _ in range(2):
        for _ in range(9):
            assert (await world.log_in(person["email"], WRONG)).status_code == 401
        assert (await world.log_in(person["email"])).status_code == 200


async def test_waiting_for_retry_after_is_enough_and_each_failure_doubles_the_wait(world: Any) -> None:
    person = await world.sign_up()
    for _ in range(10):
        await world.log_in(person["email"], WRONG)
    waits = []
    for _ in range(6):
        waits.append(int((await world.log_in(person["email"])).headers["Retry-After"]))
        await world.time_passes(waits[-1])
        assert (await world.log_in(person["email"], WRONG)).status_code == 401
    assert waits == [1, 2, 4, 8, 16, 32]
    await world.time_passes(64)
    assert (await world.log_in(person["email"])).status_code == 200
    assert (await world.log_in(person["email"], WRONG)).status_code == 401


async def test_a_network_that_signed_in_before_is_never_blocked_by_others(world: Any) -> None:
    person, home = await world.sign_up(), "192.0.2.7"
    assert (await world.log_in(person["email"], network=home)).status_code == 200
    # Strangers use up the account's limit, and a person at home uses up the network's, at another account.
    await world.log_in(person["email"], WRONG, "198.51.100.1")
    await world.log_in("nobody@example.com", WRONG, home)
    await world.execute("UPDATE login_buckets SET level = 1000")
    assert (await world.log_in(person["email"], network="198.51.100.2")).status_code == 429
    assert (await world.log_in("somebody@example.com", network=home)).status_code == 429
    assert (await world.log_in(person["email"], network=home)).status_code == 200


async def test_one_network_that_tries_many_accounts_is_slowed_down_and_others_are_not(world: Any) -> None:
    person = await world.sign_up()
    for number in range(5):
        assert (await world.log_in(f"nobody{number}@example.com", WRONG)).status_code == 401
    await world.execute("UPDATE login_buckets SET level = level + 90 WHERE level > 2")
    answers = [await world.log_in(f"somebody{number}@example.com", WRONG) for number in range(15)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:5] == [401] * 5
    assert 429 in statuses
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) <= 15
    assert (await world.log_in(person["email"], network="192.0.2.7")).status_code == 200
    await world.time_passes(15)
    assert (await world.log_in(person["email"])).status_code == 200


async def test_one_account_tried_from_many_networks_is_protected_and_its_own_networks_are_not_locked_out(
    world: Any,
) -> None:
    person, home = await world.sign_up(), "192.0.2.7"
    await world.log_in(person["email"], network=home)
    for number in range(5):
        assert (await world.log_in(person["email"], WRONG, f"198.51.100.{number}")).status_code == 401
    await world.execute("UPDATE login_buckets SET level = level + 40 WHERE level > 2")
    answers = [await world.log_in(person["email"], WRONG, f"203.0.113.{number}") for number in range(15)]
    assert 429 in [answer.status_code for answer in answers]
    assert (await world.log_in(person["email"], network=home)).status_code == 200
    await world.time_passes(15)
    assert (await world.log_in(person["email"], network="198.51.100.9")).status_code == 200


async def test_an_ipv6_network_is_a_64(world: Any) -> None:
    person = await world.sign_up()
    for number in range(10):
        await world.log_in(person["email"], WRONG, f"2001:db8:1:2::{number:x}")
    assert (await world.log_in(person["email"], network="2001:db8:1:2:ffff::1")).status_code == 429
    assert (await world.log_in(person["email"], network="2001:db8:1:3::1")).status_code == 200


async def test_an_attempt_whose_process_died_counts_as_a_failure_once_a_minute_is_over(world: Any) -> None:
    person = await world.sign_up()
    for _ in range(10):
        await world.log_in(person["email"], WRONG)
    await world.time_passes(5)
    await world.execute("UPDATE login_backoffs SET in_flight = 1")
    assert (await world.log_in(person["email"])).status_code == 429
    await world.time_passes(61)
    assert (await world.log_in(person["email"])).status_code == 200


async def test_what_is_refused_for_a_full_queue_is_503_and_not_counted(start: Any, settings: Any) -> None:
    world = await start(settings.model_copy(update={"password_threads": 1, "password_queue": 0}))
    people = [await world.sign_up() for _ in range(4)]
    answers = await asyncio.gather(*(world.log_in(person["email"]) for person in people))
    assert sorted(answer.status_code for answer in answers) == [200, 503, 503, 503]
    assert {answer.headers["Retry-After"] for answer in answers if answer.status_code == 503} == {"1"}
    assert await world.rows("SELECT 1 FROM login_backoffs WHERE failures + in_flight > 0") == []
    assert (await world.log_in(people[0]["email"])).status_code == 200


async def test_two_replicas_count_together(start: Any, settings: Any) -> None:
    one, two = await start(settings), await start(settings)
    person = await one.sign_up()
    for replica in (one, two) * 5:
        assert (await replica.log_in(person["email"], WRONG)).status_code == 401
    assert {(await replica.log_in(person["email"])).status_code for replica in (one, two)} == {429}


async def test_tables_of_sign_ins_hold_no_address(world: Any) -> None:
    person = await world.sign_up()
    await world.log_in(person["email"])
    await world.log_in(person["email"], WRONG)
    await world.log_in("nobody@example.com", WRONG)
    for table in ("login_backoffs", "login_buckets", "known_networks"):
        assert "@example.com" not in str(await world.rows(f"SELECT * FROM {table}"))  # noqa: S608


async def test_auth_reads_what_accounts_are_now(world: Any) -> None:
    ann, bob = await world.sign_up(), await world.admin()
    await world.public.post(f"/users/{ann['id']}/deactivate", headers=world.bearer(admin=True))
    token = world.tokens.mint_service("auth", scope="credentials:verify")
    ids = [ann["id"], bob["id"], "0198f2a0-0000-7000-8000-000000000000"]
    right = {"Authorization": f"Bearer {token}"}
    answer = await world.internal.post("/internal/accounts", json={"user_ids": ids}, headers=right)
    assert sorted(answer.json()["items"], key=lambda item: item["version"]) == [
        {"user_id": bob["id"], "role": "admin", "status": "active", "version": 1},
        {"user_id": ann["id"], "role": "user", "status": "deactivated", "version": 2},
    ]
    too_many = await world.internal.post("/internal/accounts", json={"user_ids": ids * 200}, headers=right)
    assert too_many.status_code == 422
    assert (await world.internal.post("/internal/accounts", json={"user_ids": ids})).status_code == 401
    assert (await world.public.post("/internal/accounts", json={"user_ids": ids}, headers=right)).status_code == 404


async def test_name_and_address_are_for_auth_and_of_active_accounts_only(world: Any) -> None:
    person, gone = await world.sign_up(), await world.sign_up()
    await world.execute("UPDATE users SET status = 'deactivated' WHERE id = :id", id=gone["id"])
    path = f"/internal/users/{person['id']}/profile"
    reader = {"Authorization": f"Bearer {world.tokens.mint_service('auth', scope='profiles:read')}"}
    answer = await world.internal.get(path, headers=reader)
    assert answer.json() == {"name": person["name"], "email": person["email"], "email_verified": False}
    assert (await world.internal.get(f"/internal/users/{gone['id']}/profile", headers=reader)).status_code == 404
    assert (await world.internal.get(path)).status_code == 401
    other = {"Authorization": f"Bearer {world.tokens.mint_service('auth', scope='credentials:verify')}"}
    assert (await world.internal.get(path, headers=other)).status_code == 403
    assert (await world.public.get(path, headers=reader)).status_code == 404
