"""The results of a run as a page of tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bench.capacity import RATES
from bench.simulation import ROLES

Row = Mapping[str, Any]
NEEDS: Final = {
    "api": "`orders:api`, processes",
    "relays": "relays of orders (P)",
    "queues": "queues of notifier, each with its consumer (Q)",
    "database": "cores of orders' PostgreSQL",
    "effects": "cores of notifier's PostgreSQL",
    "broker": "cores of RabbitMQ",
    "cores": "cores in all",
    "p50": "event committed → notification committed, p50",
    "p99": "the same, p99",
}


def page(run: Mapping[str, Any]) -> str:
    machine, benchmarks = run["machine"], run["benchmarks"]
    on = f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}, commit {machine['commit']}"
    lines = ["# The last run", "", "`./dev bench --plots` wrote it. [How to read it](README.md)."]
    lines += ["", f"{run['started'][:10]}: {on}, scale `{run['scale']}`."]
    for name, benchmark in benchmarks.items():
        lines += ["", f"## {name}", "", f"Load average at its start: {benchmark['load']:.1f}.", ""]
        lines += ["| | measured | ratio | goal | |", "| --- | ---: | ---: | --- | --- |"]
        simulated = tuple(f"{rate}: " for rate in RATES)
        lines += [_line(row) for row in benchmark["rows"] if not (row["key"] or "").startswith(simulated)]
    if needs := list(_needs(benchmarks.get("capacity", {"rows": ()})["rows"])):
        lines += [
            "",
            "## What a rate needs",
            "",
            "Simulated, with all changes of an order and nothing over 70 % busy.",
            "",
        ]
        lines += needs
    return "\n".join([*lines, ""])


def _line(row: Row) -> str:
    figure = "" if row["figure"] is None else f"{_number(row['figure'])} {row['unit']}".strip()
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    outcome = row["missing"] or {None: "", True: "met", False: "missed"}[row["met"]]
    return f"| {row['what']} | {figure} | {ratio} | {row['goal'] or ''} | {outcome} |"


def _needs(rows: Sequence[Row]) -> Iterator[str]:
    figures = {row["key"]: row for row in rows if row["figure"] is not None}
    if f"{RATES[0]}: cores" not in figures:
        return
    yield f"| orders/s | {' | '.join(f'{rate:,}' for rate in RATES)} |"
    yield f"| --- |{' ---: |' * len(RATES)}"
    for key in (*ROLES, "cores", "p50", "p99"):
        cells = [figures.get(f"{rate}: {key}") for rate in RATES]
        texts = ["" if cell is None else f"{_number(cell['figure'])} {cell['unit']}".strip() for cell in cells]
        yield f"| {NEEDS[key]} | {' | '.join(texts)} |"


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 or figure == int(figure) else f"{figure:.3g}"
