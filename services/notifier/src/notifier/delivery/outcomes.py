"""What came of an attempt to deliver, and when the next one is due."""

import random
from dataclasses import dataclass
from typing import Generic, TypeVar

from notifier.models import State

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[C]):
    """`pending` is to be tried again in `retry_in` seconds; `counts` is whether this one was an attempt."""

    claim: C
    state: State
    cause: str | None = None
    retry_in: float = 0.0
    counts: bool = True


def jittered(seconds: float) -> float:
    """So that what failed together does not come back together."""
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards no secret
