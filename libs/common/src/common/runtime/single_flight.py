"""One piece of work for everybody who waits for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs `work` at most once at a time: whoever calls meanwhile gets the same outcome, error included.

    The work goes on when a caller is cancelled, for the others' sake.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None

    @property
    def is_running(self) -> bool:
        return self._task is not None

    def start(self) -> asyncio.Task[T]:
        """Starts the work, or joins the one under way, without waiting for it."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._finished)
        return self._task

    async def __call__(self) -> T:
        return await asyncio.shield(self.start())

    async def _run(self) -> T:
        return await self._work()

    def _finished(self, task: asyncio.Task[T]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # whoever waited has it; asked for here in case nobody did

    async def close(self) -> None:
        """Ends what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
