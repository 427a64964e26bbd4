"""The limit on simultaneous sign-ins of one account from one network."""

import asyncio

import pytest

from common.testing.plugin import eventually
from users.credentials.concurrency_limiter import ConcurrencyLimiter
from users.errors import HashingBusy


class Callers:
    """Callers of one limiter. Counts how many run now (`running`) and how many ran at once at most (`peak`)."""

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self.limiter = limiter
        self.running = 0
        self.peak = 0
        self.finish = asyncio.Event()

    async def run(self, key: str) -> None:
        async with self.limiter.acquire(key):
            self.running += 1
            self.peak = max(self.peak, self.running)
            await self.finish.wait()
            self.running -= 1


async def test_no_more_than_the_limit_run_at_once_and_all_run_in_the_end() -> None:
    callers = Callers(ConcurrencyLimiter(limit=3))
    tasks = [asyncio.create_task(callers.run("ann")) for _ in range(20)]

    async def full() -> bool:
        return callers.running == 3

    await eventually(full)
    callers.finish.set()
    await asyncio.gather(*tasks)
    assert callers.peak == 3


async def test_another_key_has_a_limit_of_its_own() -> None:
    callers = Callers(ConcurrencyLimiter(limit=1))
    tasks = [asyncio.create_task(callers.run(key)) for key in ("ann", "ann", "bob")]

    async def both() -> bool:
        return callers.running == 2

    await eventually(both)
    callers.finish.set()
    await asyncio.gather(*tasks)


async def test_a_caller_that_waits_too_long_is_refused_and_later_ones_run() -> None:
    callers = Callers(ConcurrencyLimiter(limit=1, timeout=0.05))
    first = asyncio.create_task(callers.run("ann"))
    with pytest.raises(HashingBusy):
        await asyncio.gather(callers.run("ann"))
    callers.finish.set()
    await first
    await callers.run("ann")


async def test_nothing_is_kept_for_keys_without_callers() -> None:
    limiter = ConcurrencyLimiter()
    callers = Callers(limiter)
    callers.finish.set()
    await asyncio.gather(*(callers.run(f"person {number}") for number in range(50)))
    assert limiter._callers == {}
