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
    """Used for sign-ins of one account from one network.

    An attempt counts as a failure until it succeeds, so an honest client that sends many at once would look like an
    attacker. With a limit, the outcome of the first attempts clears or blocks the account before the rest are counted.
    """

    def __init__(self, *, limit: int = 8, timeout: float = 3.0) -> None:
        """`limit` is how many run at once; keep it below `throttle.FREE_FAILURES`. `timeout` is in seconds."""
        self._limit = limit
        self._timeout = timeout
        self._callers: dict[Hashable, _Callers] = {}

    @contextlib.asynccontextmanager
    async def acquire(self, key: Hashable) -> AsyncIterator[None]:
        """Raises `HashingBusy` if the caller has waited for `timeout`."""
        callers = self._callers.setdefault(key, _Callers(asyncio.Semaphore(self._limit)))
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
