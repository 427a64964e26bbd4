"""The steps of events through a process, as JSON lines that a checker reads (`./dev history`). Off by default.

A step whose name ends in `ing` is written before the act, any other after it: so a step is missing only where a process
died between an act and its record. The clock is the machine's monotonic one, which all its processes share. Each line
is one write to a file opened for appending, so the kernel has all that a killed process had written.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final

Steps = Iterable[tuple[object, object, int]]
"""Id of the event, subject and version of each."""

UNKNOWN: Final = 0
"""A version that only the database knows."""
_files: Final[list[int]] = []


def begin(folder: Path | None, process: str) -> None:
    """Writes the steps of this process into a file of `folder`, from now on."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{process}-{os.getpid()}.jsonl"
        _files[:] = [os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)]


def end() -> None:
    """Writes no more."""
    for file in _files:
        os.close(file)
    _files.clear()


def note(step: str, events: Steps, **facts: str) -> None:
    """Writes one step of each of these events. `facts` are further members of the line."""
    for file in _files:
        at = monotonic_ns()
        for event, subject, version in events:
            line: dict[str, Any] = {"at": at, "step": step, "event": str(event), "subject": str(subject)}
            os.write(file, json.dumps(line | {"version": version} | facts).encode() + b"\n")
