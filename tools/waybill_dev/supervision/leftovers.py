"""Processes that outlived their supervisor (it was killed): recorded while it lives, ended afterwards."""

import json
import signal
from collections.abc import Mapping
from pathlib import Path

import psutil

from waybill_dev.base.state import State, write_json

PATIENCE_SECONDS = 20


def record(state: State, pids: Mapping[str, int]) -> None:
    """Remembers pids with their start times: a pid alone may be somebody else's by the time it is read."""
    write_json(_file(state), {name: [pid, started] for name, pid in pids.items() if (started := _started(pid))})


def end_leftovers(state: State) -> list[str]:
    """Ends what a former supervisor of this state left running; returns the names. Call only without a supervisor."""
    try:
        recorded: dict[str, tuple[int, float]] = json.loads(_file(state).read_text())
    except FileNotFoundError:
        return []
    found = {name: psutil.Process(pid) for name, (pid, started) in recorded.items() if _started(pid) == started}
    for name, process in found.items():
        # PostgreSQL takes SIGTERM for "when all clients have gone".
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
