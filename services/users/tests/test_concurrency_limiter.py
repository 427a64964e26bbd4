"""The line before sign-ins of one account from one network."""

import asyncio

import pytest

from common.testing.plugin import eventually
from users.credentials.concurrency_limiter import Gate
from users.errors import HashingBusy


class Crowd:
    """Goes through a gate, and counts who is inside."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside = 0
        self.most = 0
        self.leave = asyncio.Event()

    async def enter(self, key: str) -> None:
        async with self.gate.through(key):
            self.inside += 1
            self.most = max(self.most, self.inside)
            await self.leave.wait()
            self.inside -= 1


async def test_few_at_a_time_pass_and_all_do() -> None:
    crowd = Crowd(Gate(width=3))
    tasks = [asyncio.create_task(crowd.enter("ann")) for _ in range(20)]

    async def full() -> bool:
        return crowd.inside == 3

    await eventually(full)
    crowd.leave.set()
    await asyncio.gather(*tasks)
    assert crowd.most == 3


async def test_another_key_has_a_line_of_its_own() -> None:
    crowd = Crowd(Gate(width=1))
    tasks = [asyncio.create_task(crowd.enter(key)) for key in ("ann", "ann", "bob")]

    async def both() -> bool:
        return crowd.inside == 2

    await eventually(both)
    crowd.leave.set()
    await asyncio.gather(*tasks)


async def test_whoever_waits_too_long_is_sent_away_and_the_line_goes_on() -> None:
    crowd = Crowd(Gate(width=1, patience=0.05))
    first = asyncio.create_task(crowd.enter("ann"))
    with pytest.raises(HashingBusy):
        await asyncio.gather(crowd.enter("ann"))
    crowd.leave.set()
    await first
    await crowd.enter("ann")


async def test_nothing_is_kept_of_lines_that_are_over() -> None:
    gate = Gate()
    crowd = Crowd(gate)
    crowd.leave.set()
    await asyncio.gather(*(crowd.enter(f"person {number}") for number in range(50)))
    assert gate._lines == {}
