"""Limits the log lines that a stranger can cause, so that a flood does not fill the disk. Metrics count every one."""

import asyncio
from collections.abc import MutableMapping
from contextvars import Context
from typing import Any, Final

import structlog

MOST_LINES: Final = 100
"""Of one cause in one window."""
WINDOW: Final = 60.0
"""Seconds, from a cause's first line."""
_MARK: Final = "limited"


def limited_logger(name: str) -> Any:
    """A logger whose lines are limited by their event's text. For whatever a stranger can repeat without end."""
    return structlog.get_logger(name, **{_MARK: True})


class LineLimit:
    """Admits `most` lines of a cause in each window. At the window's end one line says how many were left out."""

    def __init__(self, *, most: int = MOST_LINES, window: float = WINDOW) -> None:
        self._most = most
        self._window = window
        self._counts: dict[str, int] = {}

    def admits(self, cause: str, level: str = "warning") -> bool:
        """Counts a line. `cause` is one of a few: each has a count of its own. `level` is the summary's.

        Admits every line where no event loop runs, because no flood comes from there.
        """
        if cause not in self._counts:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return True
            loop.call_later(self._window, self._end, cause, level, context=Context())
        count = self._counts[cause] = self._counts.get(cause, 0) + 1
        return count <= self._most

    def _end(self, cause: str, level: str) -> None:
        left_out = self._counts.pop(cause) - self._most
        if left_out > 0:
            log = structlog.get_logger(__name__)
            getattr(log, level)("log lines left out", of=cause, count=left_out, seconds=self._window)

    def __call__(self, _logger: Any, method: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """As a structlog processor: drops the lines of a `limited_logger` that are over the limit."""
        if record.pop(_MARK, False) and not self.admits(record["event"], method):
            raise structlog.DropEvent
        return record
