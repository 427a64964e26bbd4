"""Kills one process after the other with SIGKILL, in random order: none a second time before all died once.

A server is restarted instead, as an operator would, half of the time.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter

from waybill_dev.base.state import State
from waybill_dev.errors import LocalError
from waybill_dev.supervision import control

EXEMPT = {"epmd"}  # Erlang's name server holds none of our data, and is used only when a node starts
RESTARTABLE = {"postgres", "rabbitmq"}


async def kill_at_random(state: State, until: asyncio.Event, tally: Counter[str], pause: float) -> None:
    """Counts in `tally` what was done to which process. `pause` is the average number of seconds between two kills."""
    deaths: Counter[str] = Counter()
    while not until.is_set():
        status = await asyncio.to_thread(control.call, state, "status")
        running = [one for one in status["processes"] if one["state"] == "running" and one["name"] not in EXEMPT]
        if running:
            fewest = min(deaths[one["name"]] for one in running)
            victim = random.choice([one for one in running if deaths[one["name"]] == fewest])  # noqa: S311 - no secret
            deaths[victim["name"]] += 1
            await _end(state, victim["name"], victim["pid"], tally)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(until.wait(), pause * random.uniform(0.2, 1.8))  # noqa: S311 - likewise


async def _end(state: State, name: str, pid: int, tally: Counter[str]) -> None:
    if name in RESTARTABLE and random.random() < 0.5:  # noqa: S311 - likewise
        await asyncio.to_thread(control.call, state, "restart", name)
        tally[f"restart {name}"] += 1
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        tally[f"kill -9 {name}"] += 1


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
