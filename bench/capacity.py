"""What an order costs each process, alone and in full batches, and what the simulation makes of it.

The simulation must agree with this machine before it is asked about others.
"""

import asyncio
import json
import math
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from bench import simulation
from bench.latency import CONNECTIONS, open_shop, order_and_notify, place, until, until_notified, with_commit_times
from bench.processors import Stopwatch, processes
from bench.scale import Scale
from bench.table import Goal, Missing, Rounds, Row, Table
from bench.times import Times

LIMIT = 120.0
ALONE = 20
"""Orders a second, so few that each is a batch of one everywhere."""
HALF = 200
"""Orders a second, at which this machine is busy and not full."""
RATES = (100, 1_000, 10_000)
AGREES = Goal(0.75)
"""The smaller of measured and simulated ÷ the larger."""
LAG_AGREES = Goal(0.5)
COMPARED = (
    ("rate", "orders until all are notified", "/s", AGREES),
    ("p50", f"order → notification at {HALF}/s, p50", "ms", LAG_AGREES),
    ("p99", f"order → notification at {HALF}/s, p99", "ms", None),
)
SIMULATED_EVENTS = 20_000
SWEEP_SECONDS = 1.0
ROLES = {
    "orders:api": ("alone", "placing"),
    "orders:relay": ("alone", "relaying"),
    "notifier:consume": ("alone", "consuming"),
    "postgres": ("alone", "placing", "relaying", "consuming"),
    "rabbitmq": ("alone", "relaying", "consuming"),
    "bench": ("placing",),
}


async def run(scale: Scale, table: Table) -> None:
    rows: list[Row] = []

    def add(*arguments: Any, **options: Any) -> None:
        Table(rows.append).add(*arguments, **options)
        table.add(*arguments, **options)

    rounds, status = Rounds(), await with_commit_times()
    bearer, count = await open_shop(status), int(1000 * scale.seconds)
    await order_and_notify(status, bearer, math.inf, 200)  # warms up
    for _ in range(min(scale.rounds, 2)):
        await rounds.measure("steps", _steps, status, bearer, count, within=LIMIT)
        await rounds.measure("half", _under_load, status, bearer, HALF, int(HALF * scale.seconds), within=LIMIT)
        await rounds.measure("all", _under_load, status, bearer, math.inf, count, within=LIMIT)
    for name, steps in ROLES.items():
        for step in steps:
            key = f"{step}: {name}"
            add(f"processor time of {name}: {step}", rounds.median("steps", key), "µs", key=key)
    add("an order that is alone → its notification, p50", rounds.median("steps", "lag"), "ms", key="alone: lag")
    add("orders until all are notified", rounds.median("all", "rate"), "/s", key="measured: rate")
    for part in ("p50", "p99"):
        add(f"order → notification at {HALF}/s, {part}", rounds.median("half", part), "ms", key=f"measured: {part}")
    for load, name in (("alone", "steps"), ("half", "half"), ("all", "all")):
        key = f"measured: cores, {load}"
        add(f"cores that were ours or idle: {load}", rounds.median(name, "cores"), key=key)
    run = _with_own_rows(rows)
    if "orders" not in run["benchmarks"]:
        table.add("the simulation", Missing("it needs the benchmark orders in the same run", skipped=True))
        return
    share, simulated = simulate_measured(run, count)
    _agree(simulated, measured_figures(run), table)
    _ask(replace(Times.of_run(run), share_awake=share), floor_of_run(run), table)


async def _steps(status: dict[str, Any], bearer: str, count: int) -> dict[str, float]:
    """Microseconds an order by step and process: alone, then each step of `count` orders while the next ones wait."""
    pids = {name: pid for name, pid in processes().items() if name in ROLES}
    idle = Stopwatch(pids)
    await asyncio.sleep(2)
    measured = _Steps(pids, {name: seconds / 2 for name, seconds in idle.read().items()})
    async with measured.step("alone", few := ALONE * 5):
        alone = await _under_load(status, bearer, ALONE, few)
    with _frozen(pids["notifier:consume"]):
        with _frozen(pids["orders:relay"]):
            async with measured.step("placing", count):
                ids = await place(status, bearer, math.inf, count)
        async with measured.step("relaying", count):
            await until(status, "orders", "SELECT NOT EXISTS (SELECT FROM outbox)")
    async with measured.step("consuming", count):
        await until_notified(status, ids)
    return {**measured.figures, "lag": alone["p50"], "cores": alone["cores"]}


class _Steps:
    """Processor time of steps, without what the processes use when idle."""

    def __init__(self, pids: Mapping[str, int], idle: Mapping[str, float]) -> None:
        self._pids, self._idle = pids, idle
        self.figures: dict[str, float] = {}

    @asynccontextmanager
    async def step(self, name: str, orders: int) -> AsyncIterator[None]:
        used, start = Stopwatch(self._pids), perf_counter()
        yield
        seconds = perf_counter() - start
        for process, spent in used.read().items():
            self.figures[f"{name}: {process}"] = max(0.0, spent - self._idle[process] * seconds) / orders * 1e6


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    """Stops a process for the length of the block, so that its work waits: short enough for all timeouts."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _with_own_rows(rows: list[Row]) -> dict[str, Any]:
    """The run so far."""
    file = Path(os.environ["WAYBILL_BENCH_RUN"])
    cores = len(os.sched_getaffinity(0))
    run: dict[str, Any] = (
        json.loads(file.read_text()) if file.exists() else {"machine": {"cores": cores}, "benchmarks": {}}
    )
    run["benchmarks"]["capacity"] = {"rows": [row.as_json() for row in rows]}
    return run


async def _under_load(status: dict[str, Any], bearer: str, rate: float, count: int) -> dict[str, float]:
    used = Stopwatch(processes())
    return {**await order_and_notify(status, bearer, rate, count), "cores": used.cores()}


def _agree(simulated: Mapping[str, float], measured: Mapping[str, float], table: Table) -> None:
    """Compares the simulation of this machine with what was measured on it."""
    for key, what, unit, goal in COMPARED:
        table.add(
            f"simulated: {what}",
            simulated[key],
            unit,
            ratio=agreement_of(simulated[key], measured[key]),
            goal=goal,
            key=f"simulated: {key}",
        )


def measured_figures(run: dict[str, Any]) -> dict[str, float]:
    rows = run["benchmarks"]["capacity"]["rows"]
    return {row["key"].removeprefix("measured: "): row["figure"] for row in rows if row["figure"] is not None}


def times_under(load: str, run: dict[str, Any]) -> Times:
    """The times on the cores that were left for that load: a machine that does other work is a slower one."""
    return Times.of_run(run).slower(run["machine"]["cores"] / measured_figures(run)[f"cores, {load}"])


def floor_of_run(run: dict[str, Any]) -> float:
    return simulation.floor_of(times_under("alone", run), simulation.on_this_machine(run["machine"]["cores"]))


def simulate_measured(run: dict[str, Any], count: int) -> tuple[float, dict[str, float]]:
    """What the simulation says of the figures that a run measured, and the `share_awake` it says so with.

    This share is the one figure that is fitted, so that the two figures with a goal, of a full and of a half busy
    machine, agree as well as they can together.
    """
    here, floor, measured = (
        simulation.on_this_machine(run["machine"]["cores"]),
        floor_of_run(run),
        measured_figures(run),
    )

    def simulated(share: float) -> dict[str, float]:
        half, full = (replace(times_under(load, run), share_awake=share) for load in ("half", "all"))
        at_half = simulation.at_rate(half, here, HALF, seconds=20, floor=floor)
        at_most = simulation.saturated(full, here, CONNECTIONS, count, floor=floor)
        return {"rate": at_most.rate, "p50": at_half.p50 * 1000, "p99": at_half.p99 * 1000}

    def agreement(figures: dict[str, float]) -> float:
        return min(agreement_of(figures[key], measured[key]) / goal.bound for key, _, _, goal in COMPARED if goal)

    tried = [(share, simulated(share)) for share in (number / 10 for number in range(11))]
    return max(tried, key=lambda each: agreement(each[1]))


def agreement_of(one: float, other: float) -> float:
    """The smaller ÷ the larger."""
    return min(one, other) / max(one, other)


def _ask(times: Times, floor: float, table: Table) -> None:
    """What some rates need, and how the largest deployment does at other rates."""
    table.add("a batch's time, of a process that was not idle ÷ was", ratio=times.share_awake, key="share awake")
    table.add("an order's waiting for more than processors", floor * 1000, "ms", key="floor")
    for rate in RATES:
        seconds = SIMULATED_EVENTS / rate / (1 + simulation.CHANGES)
        deployment, outcome = simulation.plan(times, rate, seconds=seconds, floor=floor)
        for role in simulation.ROLES:
            table.add(f"{rate:,} orders/s: {role}", float(getattr(deployment, role)), key=f"{rate}: {role}")
        table.add(f"{rate:,} orders/s: cores", float(deployment.cores), key=f"{rate}: cores")
        for part in ("p50", "p99"):
            key = f"{rate}: {part}"
            table.add(f"{rate:,} orders/s: event → notification, {part}", getattr(outcome, part) * 1000, "ms", key=key)
    for load in (0.4, 0.7, 1.0, 1.3, 1.6, 2.0):
        at = simulation.loaded(times, deployment, rate * load, seconds=SWEEP_SECONDS, floor=floor)
        what = f"{rate * load:,.0f} orders/s with that: request → notification, p99"
        table.add(what, at.request_p99 * 1000, "ms", key=f"sweep {rate * load:.0f}: p99")
