"""Background work of a process continues, whatever one run of it raises."""

import asyncio
from functools import partial

import pytest
from structlog.testing import capture_logs

from common.runtime.background import background, every


async def test_work_that_fails_is_started_again() -> None:
    started: list[str] = []
    again = asyncio.Event()

    async def work() -> None:
        started.append("started")
        if len(started) > 1:
            again.set()
        raise KeyError("a defect")

    async with background(work):
        await asyncio.wait_for(again.wait(), 10)


async def test_work_is_cancelled_when_the_block_ends() -> None:
    running, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with background(work):
        await asyncio.wait_for(running.wait(), 10)
    assert cancelled.is_set()


@pytest.mark.parametrize(
    ("error", "event", "level"),
    [
        (ConnectionRefusedError(), "background work postponed", "warning"),
        (KeyError("a defect"), "background work failed", "error"),
    ],
)
async def test_an_outage_is_a_warning_and_a_defect_an_error_and_both_are_tried_again(
    error: Exception, event: str, level: str
) -> None:
    calls: list[str] = []
    again = asyncio.Event()

    async def work() -> None:
        calls.append("called")
        if len(calls) > 1:
            again.set()
            return
        raise error

    with capture_logs() as logs:
        async with background(partial(every, 0.01, work)):
            await asyncio.wait_for(again.wait(), 10)
    assert (logs[0]["event"], logs[0]["log_level"]) == (event, level)
