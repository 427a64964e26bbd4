"""Reads the files that the processes wrote, as one history in the order of time."""

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    at: int
    """Nanoseconds of the machine's monotonic clock."""
    process: str
    name: str
    event: str
    subject: str
    version: int
    consumer: str = ""
    """The queue, for the steps of a consumer."""
    exchange: str = ""
    """Through which a delivery came."""


def read(folder: Path) -> Iterator[Step]:
    """A line that its process could not complete is left out."""
    return heapq.merge(*(_read_file(file) for file in sorted(folder.glob("*.jsonl"))), key=lambda step: step.at)


def _read_file(file: Path) -> Iterator[Step]:
    with file.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield _step(file.stem, json.loads(line))


def _step(process: str, line: dict[str, Any]) -> Step:
    return Step(
        line["at"],
        process,
        line["step"],
        line["event"],
        line["subject"],
        line["version"],
        line.get("consumer", ""),
        line.get("exchange", ""),
    )
