"""What a chaos run does to which process after how many orders: the same for the same seed and processes."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ANY = ("kill", "kill", "terminate", "freeze")
"""How a process is struck. The more often a way is named, the more often it is taken."""
MORE = {
    "postgres": ("disconnect",),
    "rabbitmq": ("disconnect", "memory alarm", "disk alarm"),
}


@dataclass(frozen=True)
class Strike:
    after: int
    """Orders placed since the strike before."""
    name: str
    how: str

    def __str__(self) -> str:
        return f"{self.how} {self.name}"


def plan(seed: int, names: Sequence[str], every: int) -> Iterator[Strike]:
    """Without an end. Each process is struck once before one is struck again; `every` is the average of `after`."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    while True:
        for name in chance.sample(sorted(names), len(names)):
            how = chance.choice(ANY + MORE.get(name, ()))
            yield Strike(chance.randint(1, 2 * every - 1), name, how)
