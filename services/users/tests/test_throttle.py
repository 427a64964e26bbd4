"""How failures are counted."""

from typing import Any


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
