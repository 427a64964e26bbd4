import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from waybill_dev.base.options import Options
from waybill_dev.base.program import die_with_parent
from waybill_dev.base.state import State, find_state
from waybill_dev.benchmarks import BENCHMARKS
from waybill_dev.commands.bench_results import Results, Row, failure
from waybill_dev.commands.lifecycle import booted, is_up
from waybill_dev.commands.test import servers
from waybill_dev.errors import LocalError
from waybill_dev.progress import say

PLOTS = Path("bench/plots")
_NAMES = "\n".join(f"  {name:<12} {benchmark.sentence}" for name, benchmark in BENCHMARKS.items())


@click.command(
    help="Runs benchmarks, on a system of their own; all by default. Results are ratios to ceilings that are measured"
    f" in the same run.\n\n\b\n{_NAMES}\n\nExit code 0 when all rows were measured: a missed goal is shown, and is no"
    " error.",
    short_help="Runs benchmarks. Results are ratios to a ceiling.",
)
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)), metavar="[NAME]...")
@click.option(
    "--json",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the run in this file, in place of one in .dev/bench/runs. Each row is written when it is known.",
)
@click.option("--plots", is_flag=True, help=f"Draw the run into {PLOTS}, and write bench/results.md.")
@click.option(
    "--from",
    "earlier",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure nothing: show, and with --plots draw, the run in this file.",
)
@click.option(
    "--scale",
    type=click.Choice(["normal", "full", "smoke"]),
    default="normal",
    help="full: size is measured with 10 million orders. smoke: everything runs for a moment, without useful figures.",
)
def bench(names: tuple[str, ...], file: Path | None, scale: str, earlier: Path | None, *, plots: bool) -> None:
    base = find_state()
    state = State(base.checkout, base.folder / "bench")
    state.make()
    if earlier is not None:
        results = Results.read(earlier)
        results.show(names)
    else:
        started = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
        results = Results(file or state.folder / "runs" / f"{started}.json", started, scale)
        _measure(state, results, names or tuple(BENCHMARKS))
        say(f"kept in {results.file}")
    if plots:
        _draw(state.checkout, results.file)
    if results.failures:
        raise LocalError(f"{results.failures} rows failed", log=f"{state.logs}/")


def _measure(state: State, results: Results, names: tuple[str, ...]) -> None:
    if is_up(state):
        raise LocalError("another ./dev bench of this checkout is running")
    with booted(state, Options(), "booting the whole system, for the benchmarks alone"):
        say(f"this takes about {sum(BENCHMARKS[name].seconds for name in names) / 60:.0f} minutes")
        for name in names:
            results.begin(name)
            command = [sys.executable, "-m", "bench", results.scale, name]
            environment, log = _environment(state, results), state.logs / f"bench-{name}.log"
            limit = BENCHMARKS[name].limit
            for row in rows(command, folder=state.checkout, environment=environment, limit=limit, log=log):
                results.add(name, row)
            results.end(name)


def _environment(state: State, results: Results) -> dict[str, str]:
    variables = {"WAYBILL_STATE_DIR": str(state.folder), "WAYBILL_BENCH_RUN": str(results.file)}
    return {**os.environ, **servers(state), **variables}


def rows(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], limit: float, log: Path
) -> Iterator[Row]:
    """The rows that `command` prints, as they come. If it fails, or runs for `limit` seconds, the last row says so."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - no thread of ours runs yet
        )
    timer = threading.Timer(limit, process.kill)
    timer.start()
    try:
        assert process.stdout is not None  # noqa: S101 - it is piped
        with process.stdout as lines:
            yield from map(json.loads, lines)
        if process.wait() != 0:
            yield failure(f"stopped after {limit:g} s" if not timer.is_alive() else _last_line(log))
    finally:
        timer.cancel()
        process.kill()
        process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no reason given")[:200]


def _draw(checkout: Path, file: Path) -> None:
    command = [sys.executable, "-m", "bench.plots", str(file.resolve()), str(checkout / PLOTS)]
    if subprocess.run(command, cwd=checkout, check=False).returncode != 0:
        raise LocalError("the plots could not be drawn; the reason is above")
    say(f"drew {PLOTS}")
