"""Limits how many callers run at once for one key, in this process. The others wait their turn."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass

from users.errors import HashingBusy


@dataclass(slots=True)
class _Callers:
    """Those of one key, running or waiting."""

    semaphore: asyncio.Semaphore
    count: int = 0


class ConcurrencyLimiter:
    """Used for sign-ins of one account from one network, and for all hashing that one network asks for.

    An attempt counts as a failure until it succeeds, so an honest client that sends many at once would look like an
    attacker. With a limit, the outcome of the first attempts clears or blocks the account before the rest are counted.
    """

    def __init__(self, *, limit: int = 8, max_callers: int | None = None, timeout: float = 3.0) -> None:
        """`limit` is how many run at once; for sign-ins of one account keep it below `throttle.FREE_FAILURES`.

        `max_callers` is how many may run or wait, all by default. `timeout` is in seconds.
        """
        self._limit = limit
        self._max_callers = max_callers
        self._timeout = timeout
        self._callers: dict[Hashable, _Callers] = {}

    @contextlib.asynccontextmanager
    async def acquire(self, key: Hashable) -> AsyncIterator[None]:
        """Raises `HashingBusy` at once if too many wait, and otherwise after `timeout`."""
        callers = self._callers.setdefault(key, _Callers(asyncio.Semaphore(self._limit)))
        if callers.count == self._max_callers:
            raise HashingBusy
        callers.count += 1
        try:
            try:
                async with asyncio.timeout(self._timeout):
                    await callers.semaphore.acquire()
            except TimeoutError:
                raise HashingBusy from None
            try:
                yield
            finally:
                callers.semaphore.release()
        finally:
            callers.count -= 1
            if callers.count == 0:
                del self._callers[key]
