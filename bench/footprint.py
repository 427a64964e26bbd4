"""Memory of each running API process, and the duration of a warm `./dev up`."""

import os
import subprocess
import time

import psutil

from bench.scale import Scale
from bench.shop import ROOT
from bench.table import Goal, Table
from waybill_dev.base.state import find_state
from waybill_dev.supervision import control


async def run(scale: Scale, table: Table) -> None:  # noqa: ARG001 - the signature of every benchmark
    """Stops the system and boots it again."""
    state = find_state()
    for name, service in control.call(state, "status")["services"].items():
        api = next(process for process in service["processes"] if process["role"] == "api")
        memory = psutil.Process(api["pid"]).memory_info().rss / 1e6
        table.add(
            f"the API of {name}: resident memory", memory, "MB", goal=Goal(120, 90, at_most=True), key=f"memory {name}"
        )
    _dev("down")
    began = time.perf_counter()
    _dev("up", "--detach", "--owner", str(os.getppid()))  # `./dev bench` owns the system, as before
    table.add("warm ./dev up", time.perf_counter() - began, "s", goal=Goal(15, 10, at_most=True), key="up")


def _dev(*words: str) -> None:
    subprocess.run([ROOT / "dev", *words], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own script
