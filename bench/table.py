"""The result of a benchmark: rows of figures, some with a goal."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A bound for a row's ratio or, without a ratio, for its figure. `stretch` is a better goal."""

    bound: float
    stretch: float | None = None
    at_most: bool = False

    def is_met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        return f"{sign} {self.bound:g}" + (f", better {sign} {self.stretch:g}" if self.stretch is not None else "")


@dataclass(frozen=True)
class Row:
    """A figure with its unit (`/s`, `ms`, `MB`, …), a ratio, or both."""

    what: str
    figure: float | None = None
    unit: str = ""
    ratio: float | None = None
    goal: Goal | None = None

    @property
    def is_met(self) -> bool | None:
        value = self.ratio if self.ratio is not None else self.figure
        return self.goal.is_met(value) if self.goal is not None and value is not None else None

    def as_json(self) -> dict[str, Any]:
        goal = str(self.goal) if self.goal is not None else None
        return {
            "what": self.what,
            "figure": self.figure,
            "unit": self.unit,
            "ratio": self.ratio,
            "goal": goal,
            "met": self.is_met,
        }


@dataclass
class Table:
    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        what: str,
        figure: float | None = None,
        unit: str = "",
        *,
        ratio: float | None = None,
        goal: Goal | None = None,
    ) -> None:
        self.rows.append(Row(what, figure, unit, ratio, goal))


class Rounds:
    """Figures by name, one per round. Ratios are within a round, so that a drifting machine affects both sides."""

    def __init__(self) -> None:
        self._figures: dict[str, list[float]] = {}

    def add(self, name: str, figure: float) -> None:
        self._figures.setdefault(name, []).append(figure)

    def median(self, name: str) -> float:
        return statistics.median(self._figures[name])

    def ratio(self, name: str, ceiling: str) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(a / b for a, b in zip(self._figures[name], self._figures[ceiling], strict=True))


def percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def as_json(tables: Mapping[str, Table]) -> dict[str, Any]:
    return {name: [row.as_json() for row in table.rows] for name, table in tables.items()}
