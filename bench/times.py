"""The service times of the simulation, from a run of `./dev bench orders capacity`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

TRANSACTIONS: Final = 3
"""Of one order in PostgreSQL: its own, the relay's and the consumer's."""
HOPS: Final = 2
"""Of one event in RabbitMQ: published, and delivered."""


@dataclass(frozen=True)
class Part:
    """Seconds of processor time: of a batch, and of each event in it."""

    batch: float
    event: float

    def of(self, events: int) -> float:
        return self.batch + self.event * events

    def slower(self, factor: float) -> "Part":
        return Part(self.batch * factor, self.event * factor)


@dataclass(frozen=True)
class Times:
    """`write`, `move` and `effect` are PostgreSQL's, `publish` and `deliver` RabbitMQ's, the others our processes'.

    `lag` is the seconds from the commit of an order that is alone to its notification's.
    """

    client: float
    api: Part
    write: Part
    relay: Part
    move: Part
    publish: Part
    consumer: Part
    effect: Part
    deliver: Part
    api_change: float
    write_change: float
    lag: float
    share_awake: float = 1.0
    """Of a batch's time, what a process takes that was not idle before: nothing is woken, and caches are filled."""

    def slower(self, factor: float) -> "Times":
        """On a machine whose processors are slower, or have less time for this system."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        del parts["lag"], parts["share_awake"]
        changed: dict[str, Any] = {
            name: part.slower(factor) if isinstance(part, Part) else part * factor for name, part in parts.items()
        }
        return replace(self, **changed)

    def awake(self) -> "Times":
        """Those of a process that was not idle before."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: replace(part, batch=part.batch * self.share_awake)
            for name, part in parts.items()
            if isinstance(part, Part)
        }
        return replace(self, **changed)

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> "Times":
        """Raises KeyError for a row that the run does not have."""
        seconds = figures(run)

        def part(name: str, step: str, alone: float) -> Part:
            """An order that is alone is a batch of one everywhere: what it costs more is its batches' time."""
            in_batches = seconds[f"{step}: {name}"]
            return Part(max(0.0, alone - in_batches), in_batches)

        def shared(name: str, steps: tuple[str, ...]) -> list[Part]:
            """Of a server, whose time in the steps of an order that is alone cannot be told apart."""
            more = seconds[f"alone: {name}"] - sum(seconds[f"{step}: {name}"] for step in steps)
            return [part(name, step, seconds[f"{step}: {name}"] + more / len(steps)) for step in steps]

        write, move, effect = shared("postgres", ("placing", "relaying", "consuming"))
        publish, deliver = shared("rabbitmq", ("relaying", "consuming"))
        return cls(
            client=seconds["placing: bench"],
            api=part("orders:api", "placing", seconds["alone: orders:api"]),
            write=write,
            relay=part("orders:relay", "relaying", seconds["alone: orders:relay"]),
            move=move,
            publish=publish,
            consumer=part("notifier:consume", "consuming", seconds["alone: notifier:consume"]),
            effect=effect,
            deliver=deliver,
            api_change=seconds["placing: orders:api"] * seconds["a change: the API"] / seconds["an order: the API"],
            write_change=seconds["placing: postgres"]
            * seconds["a change: PostgreSQL"]
            / seconds["an order: PostgreSQL"],
            lag=seconds["alone: lag"],
        )


def figures(run: Mapping[str, Any]) -> dict[str, float]:
    """The times of a run in seconds, by key."""
    units = {"µs": 1e-6, "ms": 1e-3}
    return {
        row["key"]: row["figure"] * units[row["unit"]]
        for benchmark in run["benchmarks"].values()
        for row in benchmark["rows"]
        if row["key"] is not None and row["figure"] is not None and row["unit"] in units
    }
