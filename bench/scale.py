"""The scales of a benchmark run."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Scale:
    """`seconds` of load in each of `rounds`.

    `orders` and `waiting` are the rows of the benchmark `size`, `dead` the deleted ones of `snapshot`.
    """

    rounds: int
    seconds: float
    connections: int
    events: int
    logins: int
    orders: int
    waiting: int
    dead: int


NORMAL: Final = Scale(
    rounds=5,
    seconds=2.0,
    connections=32,
    events=8000,
    logins=50,
    orders=1_000_000,
    waiting=100_000,
    dead=1_000_000,
)
FULL: Final = Scale(
    rounds=5,
    seconds=3.0,
    connections=32,
    events=8000,
    logins=50,
    orders=10_000_000,
    waiting=1_000_000,
    dead=1_000_000,
)
SMOKE: Final = Scale(
    rounds=1,
    seconds=0.3,
    connections=4,
    events=1500,
    logins=3,
    orders=1000,
    waiting=1000,
    dead=1000,
)
"""Only to check that everything runs: its figures mean nothing."""
SCALES: Final = {"normal": NORMAL, "full": FULL, "smoke": SMOKE}
