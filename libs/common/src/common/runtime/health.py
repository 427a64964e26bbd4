"""Whether a process lives and whether it should be given work."""

import asyncio
from collections.abc import Awaitable, Callable

Check = Callable[[], Awaitable[None]]


class Health:
    """Named readiness checks of one process. A check passes by returning and fails by raising.

    `draining` is set once the process was asked to stop: it is then alive but not ready.
    """

    def __init__(self) -> None:
        self.draining = False
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        self._checks[name] = check

    async def ready(self, *, within: float = 3.0) -> tuple[bool, dict[str, str]]:
        """Every check's outcome: `ok`, or the kind of failure (never its text, which may hold an address).

        A process that has named no check yet is still starting.
        """
        checks = dict(self._checks)  # a starting process may name more while these are under way
        outcomes = dict(
            zip(
                checks,
                await asyncio.gather(*(self._outcome(check, within) for check in checks.values())),
                strict=True,
            )
        )
        if self.draining:
            outcomes["draining"] = "stopping"
        return bool(outcomes) and all(outcome == "ok" for outcome in outcomes.values()), outcomes

    @staticmethod
    async def _outcome(check: Check, within: float) -> str:
        try:
            async with asyncio.timeout(within):
                await check()
        except Exception as error:  # noqa: BLE001 - a check may fail in any way; all mean "not ready"
            return type(error).__name__
        return "ok"
