"""Group commit: writes that arrive while one is under way go together with the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import asyncpg

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Calls `write` with up to `size` items at once and gives each caller its own result, in the items' order.

    There is no timer: a lone item is written at once, and under load a group is as large as what came in during the one
    before. Where the database refuses a group, its items are written one by one, so that one item's fault is its own.
    Any other failure (a lost connection, no time left) is every member's: what became of the group is not known. Those
    who waited while a group ran out of time fail with it: nobody waits for longer than one write may take.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, size: int) -> None:
        self._write = write
        self._size = size
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._writing is None:
            self._writing = asyncio.create_task(self._work(), name="group-commit")
        return await result

    async def _work(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
                await self._settle(group)
        finally:
            self._writing = None

    async def _settle(self, group: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._write([item for item, _ in group])
        except asyncpg.PostgresError as error:
            if len(group) > 1 and not isinstance(error, asyncpg.PostgresConnectionError):
                for one in group:
                    await self._settle([one])
            else:
                _fail(group, error)
        except TimeoutError as error:
            _fail([*group, *self._waiting], error)
            self._waiting = []
        except Exception as error:  # noqa: BLE001 - it is the callers' to handle
            _fail(group, error)
        else:
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():  # its caller may have gone
                    future.set_result(result)


def _fail(group: Sequence[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
