"""Readiness of a process."""

import asyncio
from collections.abc import Awaitable, Callable

Check = Callable[[], Awaitable[None]]


class Health:
    """Named readiness checks of one process. A check passes by returning and fails by raising.

    `draining` is set when the process begins to stop. It is then alive but not ready.
    """

    def __init__(self, **early: Check) -> None:
        """`early` are checks that a process has before it has started, so they alone do not make it ready."""
        self.draining = False
        self._early = early
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        self._checks[name] = check

    async def ready(self, *, within: float = 3.0) -> tuple[bool, dict[str, str]]:
        """Whether the process is ready, and each check's outcome: `ok`, or the error's class.

        The error's text may hold an address, so it is left out. Without an added check the process is still starting
        and not ready. `within` is seconds for each check.
        """
        checks = self._early | self._checks  # a new dict: a starting process may add checks meanwhile
        started = len(checks) > len(self._early)
        outcomes = dict(
            zip(
                checks,
                await asyncio.gather(*(self._outcome(check, within) for check in checks.values())),
                strict=True,
            )
        )
        if self.draining:
            outcomes["draining"] = "stopping"
        return started and all(outcome == "ok" for outcome in outcomes.values()), outcomes

    @staticmethod
    async def _outcome(check: Check, within: float) -> str:
        try:
            async with asyncio.timeout(within):
                await check()
        except Exception as error:  # noqa: BLE001 - any failure of a check means "not ready"
            return type(error).__name__
        return "ok"
