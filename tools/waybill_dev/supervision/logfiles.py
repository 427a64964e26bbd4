"""Rotates and follows the processes' log files."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

LIMIT_BYTES = 16 * 1024 * 1024


def rotate(folder: Path) -> None:
    """Copies each log above LIMIT_BYTES to `NAME.log.1` and empties it. Its writer appends, and need not reopen it."""
    for log in folder.glob("*.log"):
        if log.stat().st_size > LIMIT_BYTES:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


class Follower:
    """Reads new, complete lines from the logs in a folder. `since_end` skips the lines that are there already."""

    def __init__(self, folder: Path, names: tuple[str, ...] = (), *, since_end: bool) -> None:
        """`names` select the logs, see `matching`."""
        self._folder = folder
        self._names = names
        self._positions: dict[Path, int] = {}
        if since_end:
            self._positions = {log: log.stat().st_size for log in matching(folder, names)}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yields (process name, line) for each line written since the last call."""
        for log in matching(self._folder, self._names):
            position = self._positions.get(log, 0)
            size = log.stat().st_size
            if size < position:  # rotated
                position = 0
            if size == position:
                continue
            with log.open("rb") as file:
                file.seek(position)
                content = file.read(size - position)
            whole = content[: content.rfind(b"\n") + 1]
            self._positions[log] = position + len(whole)
            for line in whole.decode(errors="replace").splitlines():
                yield log.stem, line


def matching(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The logs of these processes, or all. `orders` selects all roles, `orders:api` or `orders-api` one of them."""
    wanted = [name.replace(":", "-") for name in names]
    logs = sorted(folder.glob("*.log"), key=lambda log: log.stem)
    if not wanted:
        return logs
    return [log for log in logs if any(log.stem == name or log.stem.startswith(f"{name}-") for name in wanted)]
