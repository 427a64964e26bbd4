"""Lets few at a time through for each key, in this process; others wait in line."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass

from users.errors import HashingBusy


@dataclass(slots=True)
class _Line:
    semaphore: asyncio.Semaphore
    present: int = 0


class Gate:
    """For sign-ins of one account from one network.

    Attempts count as failures until they turn out well, so an honest client with many at once would look like a
    guesser. In line, the first ones' success clears the way for the rest, and the first ones' failure blocks it.
    """

    def __init__(self, *, width: int = 8, patience: float = 3.0) -> None:
        """`width` is how many pass at once; it must be below the failures that are free. `patience` is in seconds."""
        self._width = width
        self._patience = patience
        self._lines: dict[Hashable, _Line] = {}

    @contextlib.asynccontextmanager
    async def through(self, key: Hashable) -> AsyncIterator[None]:
        """Raises `HashingBusy` when the line does not move fast enough."""
        line = self._lines.setdefault(key, _Line(asyncio.Semaphore(self._width)))
        line.present += 1
        try:
            try:
                async with asyncio.timeout(self._patience):
                    await line.semaphore.acquire()
            except TimeoutError:
                raise HashingBusy from None
            try:
                yield
            finally:
                line.semaphore.release()
        finally:
            line.present -= 1
            if line.present == 0:
                del self._lines[key]
