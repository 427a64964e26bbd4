"""Processes that outlived a killed supervisor. It records them while it runs; the next one ends them."""

import json
import signal
from collections.abc import Mapping
from pathlib import Path

import psutil

from waybill_dev.base.state import State, write_json

PATIENCE_SECONDS = 20


def record(state: State, pids: Mapping[str, int]) -> None:
    """Writes down the pids with their start times: by the time they are read, a pid may belong to another process."""
    write_json(_file(state), {name: [pid, started] for name, pid in pids.items() if (started := _started(pid))})


def end_leftovers(state: State) -> list[str]:
    """Ends the processes that a former supervisor of this state left running. Returns their names.

    Call it only while no supervisor runs.
    """
    try:
        recorded: dict[str, tuple[int, float]] = json.loads(_file(state).read_text())
    except FileNotFoundError:
        return []
    found = {name: psutil.Process(pid) for name, (pid, started) in recorded.items() if _started(pid) == started}
    for name, process in found.items():
        # At SIGTERM, PostgreSQL would wait until all clients have disconnected.
        process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
    _, alive = psutil.wait_procs(list(found.values()), timeout=PATIENCE_SECONDS)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
    _file(state).unlink()
    return list(found)


def _started(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def _file(state: State) -> Path:
    return state.folder / "processes.json"
