"""Processor time of the benchmark's own process and of the servers: where cores are few, throughput says less."""

import time
from collections.abc import Mapping
from typing import Any

import psutil

from waybill_dev.base.state import find_state
from waybill_dev.supervision import control


def processes() -> dict[str, int]:
    """The process ids of the system's servers and of each role of a service, as `postgres` or `orders:relay`."""
    status: dict[str, Any] = control.call(find_state(), "status")
    found = {"postgres": status["postgres"]["pid"], "rabbitmq": status["broker"]["pid"]}
    for service, described in status["services"].items():
        found |= {f"{service}:{process['role']}": process["pid"] for process in described["processes"]}
    return {name: pid for name, pid in found.items() if pid is not None}


class Stopwatch:
    """Seconds of processor time since it was made, by name. `bench` is this process, with all its threads."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._began = self._used()
        self._idle, self._clock = _idle(), time.perf_counter()

    def read(self) -> dict[str, float]:
        return {name: used - self._began[name] for name, used in self._used().items()}

    def per_event(self, events: int) -> dict[str, float]:
        """Microseconds an event, by name."""
        return {name: seconds / events * 1e6 for name, seconds in self.read().items()}

    def cores(self) -> float:
        """How many cores were ours or idle: fewer than the machine has, where it does other work as well."""
        return (sum(self.read().values()) + _idle() - self._idle) / (time.perf_counter() - self._clock)

    def _used(self) -> dict[str, float]:
        return {"bench": time.process_time()} | {name: _of_family(pid) for name, pid in self._pids.items()}


def _idle() -> float:
    times = psutil.cpu_times()
    return float(times.idle + getattr(times, "iowait", 0.0))


def _of_family(pid: int) -> float:
    """A process with all its descendants, ended ones included: PostgreSQL has one for each connection."""
    total = 0.0
    parent = psutil.Process(pid)
    for process in (parent, *parent.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:  # it ended just now, and is among its parent's ended ones the next time
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
