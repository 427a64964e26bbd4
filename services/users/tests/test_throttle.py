"""How failures are counted, and whom they keep out."""

import itertools
from typing import Any
from uuid import uuid4

WRONG = "not the password 1"


async def fail(world: Any, email: str, network: str, times: int = 1, **fields: Any) -> list[int]:
    return [(await world.log_in(email, WRONG, network, **fields)).status_code for _ in range(times)]


async def keep_out(world: Any, email: str, seconds: int) -> list[int]:
    """A stranger fails from seven addresses, then every ten seconds from a new /64 of one /48. Returns the owner's
    statuses, who tries the right password after each of these, at a network that they have not used yet.
    """
    for number in range(7):
        await fail(world, email, f"198.51.100.{number}", 8)
    fresh, statuses = itertools.count(1), []
    for _ in range(seconds // 10):
        await world.time_passes(10)
        await fail(world, email, f"2001:db8:1:{next(fresh):x}::1")
        statuses.append((await world.log_in(email, network=f"192.0.2.{next(fresh)}")).status_code)
    return statuses


async def test_failures_of_one_account_do_not_touch_another(world: Any) -> None:
    ann, bob = await world.sign_up(), await world.sign_up()
    for _ in range(12):
        await world.log_in(ann["email"], "not the password 1")
    assert (await world.log_in(ann["email"])).status_code == 429
    assert (await world.log_in(bob["email"])).status_code == 200


async def test_a_bucket_drains_with_time(world: Any) -> None:
    await world.log_in("nobody@example.com", "not the password 1")
    await world.time_passes(1000)
    await world.log_in("nobody@example.com", "not the password 1")
    assert {row["level"] for row in await world.rows("SELECT level FROM login_buckets")} == {1.0}


async def test_a_successful_attempt_is_taken_off_the_counts(world: Any) -> None:
    person = await world.sign_up()
    await world.execute("DELETE FROM login_buckets")  # the welcome's
    assert (await world.log_in(person["email"])).status_code == 200
    assert {round(row["level"], 3) for row in await world.rows("SELECT level FROM login_buckets")} == {0.0}
    assert await world.rows("SELECT failures, in_flight FROM login_backoffs") == [{"failures": 0, "in_flight": 0}]


async def test_a_known_network_is_updated_once_a_day(world: Any) -> None:
    person = await world.sign_up()

    async def last_login() -> Any:
        [row] = await world.rows("SELECT network, last_login_at FROM known_networks")
        assert row["network"] == "203.0.113.1/32"
        return row["last_login_at"]

    await world.log_in(person["email"])
    first = await last_login()
    await world.log_in(person["email"])
    assert await last_login() == first
    await world.time_passes(86_401)
    await world.log_in(person["email"])
    assert await last_login() > first


async def test_a_guess_every_ten_seconds_from_changing_networks_does_not_keep_the_owner_out(world: Any) -> None:
    person = await world.sign_up()
    assert await keep_out(world, person["email"], 200) == [200] * 20
    assert await keep_out(world, "nobody@example.com", 100) == [401] * 10  # as for an account that exists


async def test_the_64s_of_a_48_share_their_failures_and_those_of_an_address_do_not(world: Any) -> None:
    person = await world.sign_up()
    statuses = [
        status for number in range(30) for status in await fail(world, person["email"], f"2001:db8:1:{number}::1")
    ]
    assert statuses == [401] * 20 + [429] * 10
    refused = await world.log_in(person["email"], network="2001:db8:1:ffff::1")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert (await world.log_in(person["email"], network="2001:db8:2::1")).status_code == 200
    assert (await world.log_in("bob@example.com", network="2001:db8:1:1::1")).status_code == 401
    await world.time_passes(1)
    assert (await world.log_in(person["email"], network="2001:db8:1:ffff::1")).status_code == 200
    assert await fail(world, person["email"], "2001:db8:1:1::1", 9) == [401] * 9  # the success cleared the /48


async def test_one_48_that_tries_many_accounts_is_slowed_down_in_all_its_64s(world: Any) -> None:
    for number in range(5):
        assert await fail(world, f"nobody{number}@example.com", f"2001:db8:1:{number}::1") == [401]
    await world.execute("UPDATE login_buckets SET level = 1000, updated_at = now()")
    assert await fail(world, "somebody@example.com", "2001:db8:1:ffff::1") == [429]
    assert await fail(world, "somebody@example.com", "2001:db8:2:ffff::1") == [401]


async def test_a_known_device_of_the_account_is_not_kept_out_anywhere_and_has_a_limit_of_its_own(world: Any) -> None:
    ann, bob = await world.sign_up(), await world.sign_up()
    device = {"user_id": ann["id"], "id": str(uuid4())}
    cafe = "198.51.100.1"
    await fail(world, ann["email"], cafe, 12)
    await fail(world, bob["email"], cafe, 12)
    await world.execute("UPDATE login_buckets SET level = 1000")
    assert (await world.log_in(ann["email"], network=cafe)).status_code == 429
    assert (await world.log_in(ann["email"], network="192.0.2.1")).status_code == 429
    for network in (cafe, "192.0.2.1", "2001:db8::1"):
        assert (await world.log_in(ann["email"], network=network, device=device)).status_code == 200
    assert (await world.log_in(bob["email"], network=cafe, device=device)).status_code == 429  # another's
    assert (await world.log_in("nobody@example.com", network=cafe, device=device)).status_code == 429
    statuses = [
        status for n in range(12) for status in await fail(world, ann["email"], f"203.0.113.{n}", device=device)
    ]
    assert statuses == [401] * 10 + [429] * 2
    other = device | {"id": str(uuid4())}
    assert (await world.log_in(ann["email"], network=cafe, device=other)).status_code == 200


async def test_a_password_reset_frees_its_owner_wherever_they_are(world: Any) -> None:
    ann, bob = await world.sign_up(), await world.sign_up()
    for person in (ann, bob):
        for network in ("203.0.113.1", "192.0.2.1", "2001:db8:1:1::1"):
            await fail(world, person["email"], network, 12)
    await world.execute("UPDATE login_buckets SET level = 50 WHERE level > 20")
    await world.public.post("/password-resets", json={"email": ann["email"]})
    [link] = await world.rows("SELECT id FROM secret_links")
    token = (await world.issue(str(link["id"]))).json()["token"]
    body, headers = {"token": token, "password": "another lighthouse 8"}, {"X-Forwarded-For": "192.0.2.9"}
    assert (await world.public.post("/password-resets/confirm", json=body, headers=headers)).status_code == 204

    async def sign_in(person: Any, network: str) -> int:
        password = "another lighthouse 8" if person is ann else world.password
        status: int = (await world.log_in(person["email"], password, network)).status_code
        return status

    for network in ("203.0.113.1", "192.0.2.1", "2001:db8:1:1::1", "2001:db8:1:2::1", "192.0.2.8"):
        assert await sign_in(ann, network) == 200
        assert await sign_in(bob, network) == 429
    await world.execute("UPDATE login_buckets SET level = 1000")
    assert await sign_in(ann, "192.0.2.9") == 200  # where the link was used; others can't keep the owner out there
    assert await sign_in(ann, "192.0.2.10") == 429
