"""Group commit: items that arrive during one write are written together by the next."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from common.db.group_commit import GroupCommit


class Writer:
    """Doubles numbers; a write waits for `go`. 13 is refused, 0 loses the connection, -1 takes far too long.

    Numbers that differ by hundreds have the same key.
    """

    def __init__(self, *, size: int = 8, timeout: float = 10) -> None:
        self.groups: list[list[int]] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.timeout = timeout
        self.group = GroupCommit(self.write, size=size, timeout=timeout, key=lambda item: item % 100)

    async def write(self, items: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(items))
        self.begun.set()
        await self.go.wait()
        if 13 in items:
            raise asyncpg.CheckViolationError("13")
        if 0 in items:
            raise ConnectionResetError
        if -1 in items:
            async with asyncio.timeout(self.timeout):
                await asyncio.Event().wait()
        return [item * 2 for item in items]

    async def all(self, *items: int) -> list[int | BaseException]:
        """Hands over the items while no write can end, and returns their results."""
        handed_over = asyncio.Semaphore(0)

        async def hand_over(item: int) -> int:
            handed_over.release()
            return await self.group(item)

        tasks = [asyncio.create_task(hand_over(item)) for item in items]
        for _ in items:
            await handed_over.acquire()
        self.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_lone_item_is_written_at_once() -> None:
    writer = Writer()
    writer.go.set()
    assert [await writer.group(1), await writer.group(2)] == [2, 4]
    assert writer.groups == [[1], [2]]


async def test_simultaneous_items_are_one_group_and_each_caller_gets_its_own_result() -> None:
    writer = Writer()
    assert await writer.all(*range(1, 9)) == [item * 2 for item in range(1, 9)]
    assert writer.groups == [[1, 2, 3, 4, 5, 6, 7, 8]]


async def test_items_that_arrive_during_a_write_are_written_by_the_next() -> None:
    writer = Writer()
    first = asyncio.create_task(writer.group(1))
    await writer.begun.wait()
    assert await writer.all(2, 3) == [4, 6]
    assert await first == 2
    assert writer.groups == [[1], [2, 3]]


async def test_a_group_is_no_larger_than_its_limit() -> None:
    writer = Writer(size=2)
    assert await writer.all(1, 2, 3, 4, 5) == [2, 4, 6, 8, 10]
    assert writer.groups == [[1, 2], [3, 4], [5]]


async def test_one_failing_item_affects_no_other() -> None:
    writer = Writer()
    first, refused, last = await writer.all(1, 13, 2)
    assert (first, last) == (2, 4)
    assert isinstance(refused, asyncpg.CheckViolationError)
    assert writer.groups == [[1, 13, 2], [1], [13], [2]]


async def test_a_lost_connection_fails_the_whole_group_and_nothing_is_retried() -> None:
    writer = Writer()
    outcomes = await writer.all(1, 0, 2)
    assert [type(outcome) for outcome in outcomes] == [ConnectionResetError] * 3
    assert len(writer.groups) == 1
    assert await writer.group(4) == 8


async def test_items_with_the_same_key_are_written_one_after_the_other() -> None:
    writer = Writer()
    assert await writer.all(1, 101, 2, 201, 102) == [2, 202, 4, 402, 204]
    assert writer.groups == [[1, 2], [101, 102], [201]]


async def test_a_caller_waits_no_longer_than_its_timeout_and_is_then_not_written() -> None:
    writer = Writer(size=1, timeout=0.1)
    outcomes = await writer.all(-1, 1, 2)
    assert [type(outcome) for outcome in outcomes] == [TimeoutError] * 3
    assert await writer.group(4) == 8
    assert writer.groups == [[-1], [4]]


async def test_a_stall_after_a_refused_group_costs_its_callers_one_timeout_together() -> None:
    writer = Writer(timeout=0.1)
    outcomes = await writer.all(1, 13, -1, 2, 3)
    assert outcomes[0] == 2
    assert [type(outcome) for outcome in outcomes[1:]] == [asyncpg.CheckViolationError, *[TimeoutError] * 3]
    assert await writer.group(4) == 8
    assert writer.groups == [[1, 13, -1, 2, 3], [1], [13], [-1], [4]]


async def test_a_cancelled_caller_cancels_no_other() -> None:
    writer = Writer()
    gone = asyncio.create_task(writer.group(1))
    await writer.begun.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await writer.all(2) == [4]
