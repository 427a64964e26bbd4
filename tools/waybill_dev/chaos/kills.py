"""Who dies when: SIGKILL for one process after the other, in random order, until all have died once; then again.

For the servers it is now and then an operator's restart.
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

SPARED = {"epmd"}  # Erlang's name server holds nothing of ours and is asked only when a node starts
RESTARTABLE = {"postgres", "rabbitmq"}


async def strike(state: State, until: asyncio.Event, tally: Counter[str], pause: float) -> None:
    """Counts in `tally` what was done to whom. `pause`: seconds between two kills, on average."""
    struck: Counter[str] = Counter()
    while not until.is_set():
        status = await asyncio.to_thread(control.call, state, "status")
        running = [one for one in status["processes"] if one["state"] == "running" and one["name"] not in SPARED]
        if running:
            fewest = min(struck[one["name"]] for one in running)
            victim = random.choice([one for one in running if struck[one["name"]] == fewest])  # noqa: S311 - no secret
            struck[victim["name"]] += 1
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
    """Raises LocalError when a process does not come back."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        status = await asyncio.to_thread(control.call, state, "status")
        away = [one["name"] for one in status["processes"] if one["state"] != "running"]
        if not away:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise LocalError(f"not running again within {within:.0f} s: {', '.join(away)}")
        await asyncio.sleep(0.5)
