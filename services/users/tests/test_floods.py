"""Many sign-ups and sign-ins at once do not prevent those of others."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext

from users.credentials.passwords import HashingKind, HashingPool
from users.errors import HashingBusy

IN_FLIGHT = 50
_NUMBER = itertools.count(1)


async def try_sign_up(world: Any, address: str, *, email: str | None = None) -> httpx.Response:
    """A sign-up from this address of a client."""
    body = {"name": "Ann", "email": email or f"flood{next(_NUMBER)}@example.com", "password": world.password}
    answer: httpx.Response = await world.public.post("/users", json=body, headers={"X-Forwarded-For": address})
    return answer


@contextlib.asynccontextmanager
async def sign_ups_in_flight(world: Any, count: int, networks: int) -> AsyncIterator[None]:
    """Keeps `count` sign-ups in flight, each repeated as soon as it is answered."""
    stopped = asyncio.Event()

    async def repeat(address: str) -> None:
        while not stopped.is_set():
            await try_sign_up(world, address)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(repeat(f"198.51.100.{number % networks}"))
        try:
            yield
        finally:
            stopped.set()


@pytest.mark.parametrize("networks", [1, 10])
async def test_with_fifty_sign_ups_in_flight_every_right_password_is_accepted(world: Any, networks: int) -> None:
    person = await world.sign_up()
    async with sign_ups_in_flight(world, IN_FLIGHT, networks):
        await try_sign_up(world, "203.0.113.9")  # the queue is full by now
        statuses = [(await world.log_in(person["email"])).status_code for _ in range(8)]
    assert statuses == [200] * 8


async def test_with_fifty_sign_ups_of_one_network_in_flight_another_network_signs_up(world: Any) -> None:
    async with sign_ups_in_flight(world, IN_FLIGHT, 1):
        await try_sign_up(world, "203.0.113.9")
        statuses = [(await try_sign_up(world, "203.0.113.1")).status_code for _ in range(5)]
    assert statuses == [201] * 5


async def test_sign_ins_of_one_network_leave_room_for_those_of_others() -> None:
    pool = HashingPool(threads=1, queue=7, patience=60)
    networks = [f"2001:db8:1:{number}::/64" for number in range(8)]  # a /48 counts as one
    async with contextlib.AsyncExitStack() as stack:
        for network in networks[:4]:
            await stack.enter_async_context(pool.slot("sign_in", network=network))
        begun = asyncio.Semaphore(0)

        async def begin(network: str) -> None:
            begun.release()
            await hold(pool, "sign_in", network)

        waiting = [asyncio.create_task(begin(network)) for network in networks[4:]]
        for _ in waiting:
            await begun.acquire()
        for number in range(4):
            await stack.enter_async_context(pool.slot("sign_in", network=f"192.0.2.{number}/32"))
        assert not any(task.done() for task in waiting)
        with pytest.raises(HashingBusy):
            await hold(pool, "sign_in", networks[0])
    await asyncio.gather(*waiting)
    pool.close()


async def test_new_passwords_leave_all_slots_of_sign_ins_free() -> None:
    pool = HashingPool(threads=1, queue=1)
    async with pool.slot("new_password", network="a"), pool.slot("new_password", network="b"):
        with pytest.raises(HashingBusy):
            await hold(pool, "new_password", "c")
        async with pool.slot("sign_in", network="a"), pool.slot("sign_in", network="b"):
            with pytest.raises(HashingBusy):
                await hold(pool, "sign_in", "c")
    pool.close()


async def hold(pool: HashingPool, kind: HashingKind, network: str) -> None:
    async with pool.slot(kind, network=network):
        pass


async def test_sign_ups_of_a_network_are_limited_before_they_are_hashed(start: Any, settings: Any) -> None:
    world = await start(settings.model_copy(update={"addresses_per_network": 3}))
    taken = (await try_sign_up(world, "203.0.113.1")).json()["email"]
    answers = [await try_sign_up(world, "203.0.113.1", email=taken) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [409, 409, 429]
    refused = answers[-1]
    assert (refused.json()["code"], refused.headers["Retry-After"]) == ("too_many_addresses", "200")
    assert (await try_sign_up(world, "203.0.113.1")).status_code == 429
    assert (await try_sign_up(world, "203.0.113.2")).status_code == 201
    await world.time_passes(200)
    assert (await try_sign_up(world, "203.0.113.1")).status_code == 201


async def test_an_ipv6_48_can_sign_up_four_times_as_many_as_a_64(start: Any, settings: Any) -> None:
    world = await start(settings.model_copy(update={"addresses_per_network": 1}))
    statuses = [(await try_sign_up(world, f"2001:db8:1:{number}::1")).status_code for number in (1, 1, 2, 3, 4, 5)]
    assert statuses == [201, 429, 201, 201, 201, 429]
    assert (await try_sign_up(world, "2001:db8:2::1")).status_code == 201


async def test_whether_an_address_is_taken_can_be_asked_no_faster_with_an_account(start: Any, settings: Any) -> None:
    world = await start(settings.model_copy(update={"addresses_per_network": 3}))
    ann, bob = await world.sign_up(), await world.sign_up()
    headers = world.bearer(ann)

    async def change(**fields: Any) -> tuple[int, str | None]:
        body = fields | ({"current_password": world.password} if "email" in fields else {})
        answer = await world.public.patch("/me", json=body, headers=headers)
        return answer.status_code, answer.json().get("code")

    assert await change(email=ann["email"], name="Anna") == (200, None)  # it is their own address
    assert await change(email=bob["email"]) == (409, "email_taken")
    assert await change(email=bob["email"]) == (429, "too_many_addresses")
    assert await change(name="Ann") == (200, None)


async def test_reset_requests_of_a_network_are_limited_whether_or_not_the_account_exists(
    start: Any, settings: Any
) -> None:
    world = await start(settings.model_copy(update={"addresses_per_network": 4}))
    person = await world.sign_up()

    async def request(address: str, email: str) -> tuple[int, str | None, str | None]:
        headers = {"X-Forwarded-For": address}
        answer = await world.public.post("/password-resets", json={"email": email}, headers=headers)
        code = answer.json()["code"] if answer.content else None
        return answer.status_code, code, answer.headers.get("Retry-After")

    for number in range(4):
        assert await request("203.0.113.1", f"nobody{number}@example.com") == (202, None, None)
    before = await world.rows("SELECT count(*) AS rows FROM login_buckets")
    for email in (person["email"], "nobody@example.com"):
        assert await request("203.0.113.1", email) == (429, "too_many_addresses", "150")
    assert await world.rows("SELECT count(*) AS rows FROM login_buckets") == before  # refused before any other work
    assert await request("203.0.113.2", person["email"]) == (202, None, None)
    await world.time_passes(150)
    assert await request("203.0.113.1", person["email"]) == (202, None, None)


async def test_an_ipv6_64_requests_no_more_resets_than_one_address(start: Any, settings: Any) -> None:
    world = await start(settings.model_copy(update={"addresses_per_network": 1}))
    statuses = []
    for address in ("2001:db8:1:1::1", "2001:db8:1:1::2", "2001:db8:1:2::1"):
        body, headers = {"email": "ann@example.com"}, {"X-Forwarded-For": address}
        statuses.append((await world.public.post("/password-resets", json=body, headers=headers)).status_code)
    assert statuses == [202, 429, 202]


async def test_verification_mails_requested_by_a_network_are_limited_however_many_accounts_it_has(
    start: Any, settings: Any
) -> None:
    world = await start(settings.model_copy(update={"addresses_per_network": 3}))
    ann, bob = await world.sign_up(), await world.sign_up()
    answers = [await world.public.post("/email-verifications", headers=world.bearer(person)) for person in (ann, bob)]
    assert [answer.status_code for answer in answers] == [202, 429]
    assert answers[1].json()["code"] == "too_many_addresses"
    assert (await world.public.post("/email-verifications")).status_code == 401


async def test_a_hundred_people_can_sign_up_at_one_address_by_default(world: Any) -> None:
    for _ in range(100):
        assert (await try_sign_up(world, "203.0.113.1")).status_code == 201


async def test_a_taken_address_is_no_error_of_the_database(world: Any) -> None:
    """PostgreSQL would log each, with the address unless it is configured not to."""
    ann, bob = await world.sign_up(), await world.sign_up()
    errors: list[ExceptionContext] = []

    def note(error: ExceptionContext) -> None:
        errors.append(error)

    event.listen(Engine, "handle_error", note)
    try:
        assert (await try_sign_up(world, "203.0.113.1", email=bob["email"])).status_code == 409
        assert (await world.request_email(ann, bob["email"])).status_code == 409
    finally:
        event.remove(Engine, "handle_error", note)
    assert errors == []
