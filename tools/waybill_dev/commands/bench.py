import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.table import Table

from waybill_dev.base.options import Options
from waybill_dev.base.program import die_with_parent
from waybill_dev.base.state import State, find_state
from waybill_dev.benchmarks import BENCHMARKS
from waybill_dev.commands.lifecycle import booted, is_up
from waybill_dev.commands.test import servers
from waybill_dev.commands.trace import console
from waybill_dev.errors import LocalError
from waybill_dev.progress import say

Rows = list[dict[str, Any]]
_NAMES = "\n".join(f"  {name:<12} {benchmark.sentence}" for name, benchmark in BENCHMARKS.items())


@click.command(
    help="Runs benchmarks, on a system of their own; all by default. Results are ratios to ceilings that are measured"
    f" in the same run.\n\n\b\n{_NAMES}\n\nExit code 0 when they ran: a missed goal is shown, and is no error.",
    short_help="Runs benchmarks. Results are ratios to a ceiling.",
)
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)), metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.option(
    "--scale",
    type=click.Choice(["normal", "full", "smoke"]),
    default="normal",
    help="full: size is measured with 10 million orders. smoke: everything runs for a moment, without useful figures.",
)
def bench(names: tuple[str, ...], scale: str, *, as_json: bool) -> None:
    names = names or tuple(BENCHMARKS)
    base = find_state()
    state = State(base.checkout, base.folder / "bench")
    state.make()
    if is_up(state):
        raise LocalError("another ./dev bench of this checkout is running")
    results: dict[str, Rows] = {}
    with booted(state, Options(), "booting the whole system, for the benchmarks alone"):
        say(f"this takes about {sum(BENCHMARKS[name].seconds for name in names) / 60:.0f} minutes")
        for name, rows in _run(state, scale, names):
            results[name] = rows
            if not as_json:
                show(name, rows)
    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))


def _run(state: State, scale: str, names: Sequence[str]) -> Iterator[tuple[str, Rows]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", scale, *names],
        cwd=state.checkout,
        env={**os.environ, **servers(state), "WAYBILL_STATE_DIR": str(state.folder)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - there is a single thread
    )
    assert process.stdout is not None  # noqa: S101 - it is piped
    with process.stdout as lines:
        for line in lines:
            result = json.loads(line)
            yield result["name"], result["rows"]
    if process.wait() != 0:
        raise LocalError(f"a benchmark failed (exit code {process.returncode})", log=f"{state.logs}/")


def show(name: str, rows: Rows) -> None:
    table = Table(title=f"{name}: {BENCHMARKS[name].sentence}", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for heading in ("measured", "ratio", "goal", "met"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        figure = "" if row["figure"] is None else f"{row['figure']:,.{_digits(row['figure'])}f} {row['unit']}".strip()
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        met = {None: "", True: "yes", False: "no"}[row["met"]]
        table.add_row(row["what"], figure, ratio, row["goal"] or "", met)
    screen = console()
    screen.print()
    screen.print(table)


def _digits(figure: float) -> int:
    return 0 if figure >= 100 else 1 if figure >= 10 else 2
