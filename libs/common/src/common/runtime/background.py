"""Background work of a process, with one error policy: run for the length of a block, or repeated."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final, NoReturn

import structlog

from common.db.outages import is_outage

log = structlog.get_logger(__name__)

Work = Callable[[], Awaitable[object]]

_RESTART_PAUSE: Final = 1.0


@contextlib.asynccontextmanager
async def background(*works: Work) -> AsyncIterator[None]:
    """Runs each of `works` for the length of the block and cancels it at the end.

    Work that returns or raises is started again after a second, so that a defect cannot leave a process running for
    days without its background work.
    """
    tasks = [asyncio.create_task(_keep_running(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def every(seconds: float, work: Work) -> NoReturn:
    """Calls `work` now, and again `seconds` after each return.

    An outage is logged as a warning, any other error with its traceback. Neither ends the repetition.
    """
    while True:
        try:
            await work()
        except Exception as error:
            if is_outage(error):
                log.warning("background work postponed", work=_name(work), error=type(error).__name__)
            else:
                log.exception("background work failed", work=_name(work))
        await asyncio.sleep(seconds)


async def first_of(*events: asyncio.Event, within: float | None = None) -> None:
    """Returns when one of the events is set, or after `within` seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def all_of(*works: Coroutine[Any, Any, object]) -> None:
    """Runs all of `works`. The first that fails cancels the others, and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


async def _keep_running(work: Work) -> NoReturn:
    while True:
        try:
            await work()
        except Exception:
            log.critical("background work failed, restarting it", work=_name(work), exc_info=True)
        await asyncio.sleep(_RESTART_PAUSE)


def _name(work: Work) -> str:
    return getattr(work, "__qualname__", repr(work))
