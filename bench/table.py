"""The rows of a benchmark: figures, some with a goal. A figure that is missing costs only the rows that need it."""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final


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
class Missing:
    """Why there is no figure: its measurement failed or, with `skipped`, this version cannot be measured so."""

    why: str
    skipped: bool = False

    def __str__(self) -> str:
        return f"{'skipped' if self.skipped else 'failed'}: {self.why}"


Figure = float | Missing


@dataclass(frozen=True)
class Row:
    """A figure with its unit (`/s`, `ms`, `MB`, …), a ratio, or both. `key` names it for plots and the simulation."""

    what: str
    figure: Figure | None = None
    unit: str = ""
    ratio: Figure | None = None
    goal: Goal | None = None
    key: str | None = None

    @property
    def missing(self) -> Missing | None:
        return next((value for value in (self.ratio, self.figure) if isinstance(value, Missing)), None)

    @property
    def is_met(self) -> bool | None:
        value = self.ratio if self.ratio is not None else self.figure
        if self.goal is None or value is None or isinstance(value, Missing):
            return None
        return self.goal.is_met(value)

    def as_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "key": self.key,
            "figure": None if isinstance(self.figure, Missing) else self.figure,
            "unit": self.unit,
            "ratio": None if isinstance(self.ratio, Missing) else self.ratio,
            "goal": str(self.goal) if self.goal is not None else None,
            "bound": self.goal.bound if self.goal is not None else None,
            "met": self.is_met,
            "missing": str(self.missing) if self.missing is not None else None,
        }


class Table:
    """Passes each row on as soon as it is known."""

    def __init__(self, emit: Callable[[Row], None]) -> None:
        self._emit: Final = emit

    def add(
        self,
        what: str,
        figure: Figure | None = None,
        unit: str = "",
        *,
        ratio: Figure | None = None,
        goal: Goal | None = None,
        key: str | None = None,
    ) -> None:
        self._emit(Row(what, figure, unit, ratio, goal, key))


Measured = float | Mapping[str, float]
"""What one measurement returns: a figure, or several by name. The name "" is the one without a name."""


class Rounds:
    """Figures by name, one per round. Ratios are within a round, so that a drifting machine affects both sides."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], list[float]] = {}
        self._missing: dict[str, Missing] = {}

    def add(self, name: str, measured: Measured) -> None:
        for part, figure in (measured if isinstance(measured, Mapping) else {"": measured}).items():
            self._figures.setdefault((name, part), []).append(figure)

    def skip(self, name: str, why: str) -> None:
        self._missing[name] = Missing(why, skipped=True)

    async def measure(
        self, name: str, measurement: Callable[..., Awaitable[Measured]], *arguments: Any, within: float
    ) -> None:
        """Adds what `measurement(*arguments)` returns. If it raises, or takes more than `within` seconds, `name` has no
        figure: not even from earlier rounds, because their median would be of other rounds than its ceiling's.
        """
        if name in self._missing:
            return
        try:
            async with asyncio.timeout(within):
                self.add(name, await measurement(*arguments))
        except TimeoutError:
            self._missing[name] = Missing(f"not done within {within:g} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, the other measurements go on
            self._missing[name] = Missing(f"{type(error).__name__}: {error}".removesuffix(": "))

    def median(self, name: str, part: str = "") -> Figure:
        return self._missing.get(name) or statistics.median(self._figures[name, part])

    def ratio(self, name: str, ceiling: str, part: str = "", ceiling_part: str | None = None) -> Figure:
        """The median of the rounds' ratios."""
        if missing := self._missing.get(name) or self._missing.get(ceiling):
            return missing
        above, below = self._figures[name, part], self._figures[ceiling, part if ceiling_part is None else ceiling_part]
        return statistics.median(a / b for a, b in zip(above, below, strict=True))


def percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
