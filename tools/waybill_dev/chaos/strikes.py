"""Strikes the processes of a stack as planned: SIGKILL, SIGTERM, a freeze, cut connections, a broker's alarm."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from waybill_dev.base.state import State
from waybill_dev.chaos.plan import Strike
from waybill_dev.errors import LocalError
from waybill_dev.servers.rabbitmq_finder import find_programs
from waybill_dev.supervision import control

EXEMPT = {"epmd"}  # Erlang's name server holds none of our data, and is used only when a node starts
FROZEN_SECONDS = 3.0
POLL_SECONDS = 0.05
ALARMS = {
    "memory alarm": (("set_vm_memory_high_watermark", "0.00000001"), ("set_vm_memory_high_watermark", "0.4")),
    "disk alarm": (("set_disk_free_limit", "100000GB"), ("set_disk_free_limit", "100MB")),
}
DISCONNECT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> $1"


async def strike_as_planned(
    state: State,
    plan: Iterator[Strike],
    placed: Callable[[], int],
    until: asyncio.Event,
    tally: Counter[str],
    *,
    seconds_an_order: float | None,
) -> None:
    """Counts in `tally` what was done. `placed` is the number of orders so far.

    With `seconds_an_order` the plan's orders are as many seconds, whatever was placed.
    """
    due = 0
    while not until.is_set():
        strike = next(plan)
        due += strike.after
        if seconds_an_order is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), strike.after * seconds_an_order)
        while seconds_an_order is None and placed() < due and not until.is_set():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(POLL_SECONDS)
        process = await _running(state, strike.name, until)
        if process is not None:
            await _strike(state, strike, process["pid"])
            tally[str(strike)] += 1


async def _running(state: State, name: str, until: asyncio.Event) -> dict[str, Any] | None:
    """The process, once it runs again after an earlier strike; None if the run ends before."""
    while not until.is_set():
        status = await asyncio.to_thread(control.call, state, "status")
        for process in status["processes"]:
            if process["name"] == name and process["state"] == "running":
                return dict(process)
        await asyncio.sleep(POLL_SECONDS)
    return None


async def _strike(state: State, strike: Strike, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        match strike.how:
            case "kill":
                os.kill(pid, signal.SIGKILL)
            case "terminate":
                os.kill(pid, signal.SIGTERM)
            case "freeze":
                with _frozen(pid):
                    await asyncio.sleep(FROZEN_SECONDS)
            case "disconnect" if strike.name == "postgres":
                await _disconnect(state)
            case "disconnect":
                await rabbitmqctl(pid, "close_all_connections", "chaos")
            case alarm:
                begin, end = ALARMS[alarm]
                await rabbitmqctl(pid, *begin)
                try:
                    await asyncio.sleep(FROZEN_SECONDS)
                finally:
                    await rabbitmqctl(pid, *end)


@contextlib.contextmanager
def _frozen(pid: int) -> Iterator[None]:
    """PostgreSQL's and the broker's helper processes are frozen with their parent."""
    parent = psutil.Process(pid)
    processes = [parent, *parent.children(recursive=True)]
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


async def _disconnect(state: State) -> None:
    status = await asyncio.to_thread(control.call, state, "status")
    connection = await asyncpg.connect(status["postgres"]["url"], timeout=10)
    try:
        await connection.execute(DISCONNECT, connection.get_server_pid())
    finally:
        await connection.close()


async def rabbitmqctl(pid: int, *words: str) -> None:
    """Runs `rabbitmqctl` in the environment of the node with that pid. Raises LocalError if it fails."""
    programs = find_programs()
    if programs is None:
        raise LocalError("a broker in a container cannot be controlled from here")
    command = Path(programs.server).with_name("rabbitmqctl")
    environment = psutil.Process(pid).environ()
    run = partial(subprocess.run, [command, *words], env=environment, capture_output=True, text=True, check=False)
    done = await asyncio.to_thread(run)
    if done.returncode != 0:
        raise LocalError(f"rabbitmqctl {' '.join(words)} failed: {done.stderr.strip()[-300:]}")


async def until_all_run(state: State, within: float) -> None:
    """Waits until every process runs. Raises LocalError after `within` seconds."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        status = await asyncio.to_thread(control.call, state, "status")
        missing = [one["name"] for one in status["processes"] if one["state"] != "running"]
        if not missing:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise LocalError(f"not running again within {within:.0f} s: {', '.join(missing)}")
        await asyncio.sleep(0.5)
