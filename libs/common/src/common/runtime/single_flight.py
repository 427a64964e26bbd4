"""Shares one run of some work between all its callers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs `work` at most once at a time. Callers during a run get its outcome, also if that is an error.

    The work continues when a caller is cancelled, because others may wait for it.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._task: asyncio.Future[T] | None = None

    @property
    def is_running(self) -> bool:
        return self._task is not None

    def start(self) -> asyncio.Future[T]:
        """Starts the work, or joins the current run, without waiting for it."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._work())
            self._task.add_done_callback(self._finished)
        return self._task

    async def __call__(self) -> T:
        return await asyncio.shield(self.start())

    def _finished(self, task: asyncio.Future[T]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # marks it as retrieved, in case no caller waited

    async def close(self) -> None:
        """Cancels the current run."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
