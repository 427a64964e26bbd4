"""`python -m bench.plots RUN.json FOLDER` draws a run of `./dev bench`, a picture for each path, and writes its tables
into `results.md` next to the folder.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.drawing import Bar, Chart, draw_bars, draw_line
from bench.report import page

Row = Mapping[str, Any]
CEILINGS: Final = {"raw1", "tutorial", "select", "publish", "consume", "argon2"}
PATHS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "orders": ("Placing and changing an order", ("orders",)),
    "reads": ("Reading an order", ("reads",)),
    "relay": ("From outbox to broker", ("relay", "snapshot", "fanout")),
    "consumer": ("From queue to effect", ("consumer",)),
    "latency": ("From an order's commit to its notification's", ("latency",)),
    "identity": ("Sign-ins, grants and sign-outs", ("logins", "grants", "revocation")),
}
UNITS: Final = {
    "/s": "per second",
    "ms": "milliseconds",
    "µs": "processor time, microseconds",
}
MOST: Final = 3.0
"""Of a goal: longer bars would make the others short."""


def main() -> None:
    file, folder = map(Path, sys.argv[1:])
    run = json.loads(file.read_text())
    benchmarks: dict[str, list[Row]] = {name: kept["rows"] for name, kept in run["benchmarks"].items()}
    machine = run["machine"]
    measured = f"{run['started'][:10]}, {machine['cores']} cores, Python {machine['python']}, {machine['commit']}"
    for path, (title, names) in PATHS.items():
        rows = [row for name in names for row in benchmarks.get(name, ()) if row["missing"] is None]
        if charts := list(_charts(rows)):
            draw_bars(folder / f"{path}.png", title, measured, charts)
    folder.with_name("results.md").write_text(page(run))
    _draw_capacity(folder, measured, {row["key"]: row for row in benchmarks.get("capacity", ())})


def _charts(rows: Sequence[Row]) -> Iterator[Chart]:
    """The ratios that have a goal, each as a part of its goal; the others; and the figures of each unit."""
    keyed = [row for row in rows if row["key"] is not None]
    ratios = [row for row in keyed if row["ratio"] is not None]
    if bars := [_to_goal(row) for row in ratios if row["bound"] is not None]:
        yield Chart("ratios to ceilings, drawn relative to their goals (the line); orange misses its goal", bars)
    if bars := [_ratio(row) for row in ratios if row["bound"] is None]:
        yield Chart("ratios", bars)
    for unit, title in UNITS.items():
        if bars := [_figure(row) for row in keyed if row["unit"] == unit]:
            yield Chart(title, bars)


def _to_goal(row: Row) -> Bar:
    part = min(row["ratio"] / row["bound"], MOST)
    return Bar(_compared(row), part, f"{row['ratio']:.2f} (goal {row['goal'].split(',')[0]})", 1.0, is_met=row["met"])


def _ratio(row: Row) -> Bar:
    return Bar(_compared(row), row["ratio"], f"{row['ratio']:.2f}")


def _compared(row: Row) -> str:
    what: str = row["what"].replace(", and ÷", " ÷")
    return f"{what}{' without' * what.endswith('÷')}"


def _figure(row: Row) -> Bar:
    figure = row["figure"]
    text = f"{figure:,.0f}" if figure >= 100 else f"{figure:.2g}" if figure < 1 else f"{figure:.1f}"
    what = row["what"].split(", and ÷")[0].removeprefix("processor time of ")
    met = row["met"] if row["ratio"] is None else None
    return Bar(what, figure, text, is_met=met, is_ceiling=row["key"] in CEILINGS)


def _draw_capacity(folder: Path, measured: str, rows: Mapping[str | None, Row]) -> None:
    sweep = [
        (float(key.removeprefix("sweep ").removesuffix(": p99")), row["figure"])
        for key, row in rows.items()
        if key is not None and key.startswith("sweep ")
    ]
    if sweep:
        title = "Simulated: orders with all their changes, on a deployment for 10,000 a second"
        axes = ("orders a second", "request to notification, p99 in ms")
        draw_line(folder / "capacity.png", title, f"times of {measured}", sweep, axes=axes)


if __name__ == "__main__":
    main()
