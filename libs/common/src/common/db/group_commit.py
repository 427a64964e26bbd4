"""Group commit: writes that arrive while another is running share the next statement."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

import asyncpg

from common.db.driver import makes_unusable

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Calls `write` with up to `size` items and gives each caller the result of its own item.

    There is no timer: a single item is written immediately, and under load a group holds whatever arrived during the
    previous write. A group holds one item of each `key`; those with the same key follow in the order of their arrival.

    If the database refuses a group, its items are written one by one, so that a bad item fails alone. Any other failure
    (a lost connection, a timeout) fails the whole group, since its outcome is unknown.

    A call raises `TimeoutError` after `timeout` seconds, however slow the writes before its own are. If its write has
    not begun by then, it never will; otherwise its outcome is unknown.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        size: int,
        timeout: float,
        key: Callable[[T], Hashable] = id,
    ) -> None:
        self._write = write
        self._size = size
        self._timeout = timeout
        self._key = key
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._writing is None:
            self._writing = asyncio.create_task(self._work(), name="group-commit")
        async with asyncio.timeout(self._timeout):
            return await result

    async def _work(self) -> None:
        try:
            while group := self._next_group():
                await self._settle(group)
        finally:
            self._writing = None

    def _next_group(self) -> Sequence[tuple[T, asyncio.Future[R]]]:
        group: dict[Hashable, tuple[T, asyncio.Future[R]]] = {}
        later = []
        for item, result in self._waiting:
            key = self._key(item)
            if result.done():  # its caller gave up
                continue
            if len(group) < self._size and key not in group:
                group[key] = item, result
            else:
                later.append((item, result))
        self._waiting = later
        return list(group.values())

    async def _settle(self, group: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._write([item for item, _ in group])
        except asyncpg.PostgresError as error:
            if len(group) > 1 and not makes_unusable(error):
                for one in group:
                    if not one[1].done():
                        await self._settle([one])
            else:
                _fail(group, error)
        except Exception as error:  # noqa: BLE001 - the callers handle it
            _fail(group, error)
        else:
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():  # its caller may have been cancelled
                    future.set_result(result)


def _fail(group: Sequence[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
