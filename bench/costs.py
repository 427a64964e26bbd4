"""Statements, round trips and bytes of write-ahead log of an order, a change, and an event relayed and consumed.

`python -m bench.costs` counts them on the servers of the environment and compares them with `bench/costs.json`;
`--update` writes that file. Counts are exact and the same on any machine: orders are placed one by one, and of batches
only full ones count. Bytes of log may differ by `WAL_TOLERANCE`, because batches that are not full have a part in them.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.counted_events import event_consumed, event_consumed_by_notifier, event_relayed
from bench.counted_orders import GROUP, change, order, order_in_a_group
from bench.meter import Cost
from common.observability.logs import configure_logging

BASELINE: Final = Path(__file__).with_name("costs.json")
WAL_TOLERANCE: Final = 0.05
MEASUREMENTS: Final[Mapping[str, Callable[[], Awaitable[Cost]]]] = {
    "an order": order,
    f"an order, {GROUP} in a group": order_in_a_group,
    "a change of state": change,
    "an event relayed": event_relayed,
    "an event consumed in order": event_consumed,
    "an event consumed by notifier": event_consumed_by_notifier,
}
GOALS: Final = {"an order": 1.0, "an event relayed": 0.01, "an event consumed in order": 0.05}
"""Statements at most."""


def differences(counted: dict[str, Cost], baseline: dict[str, dict[str, float]]) -> list[str]:
    """What differs from the baseline, in words. Less is a difference, too: the baseline shall say what is true."""
    found = [f"{name}: not in the baseline" for name in counted.keys() - baseline.keys()]
    found += [f"{name}: in the baseline, and not counted" for name in baseline.keys() - counted.keys()]
    for name in counted.keys() & baseline.keys():
        for unit, figure in asdict(counted[name]).items():
            before = baseline[name][unit]
            tolerance = before * WAL_TOLERANCE if unit == "wal_bytes" else 1e-9
            if abs(figure - before) > tolerance:
                found.append(f"{name}: {unit.replace('_', ' ')} {before:g} → {figure:g}")
    return sorted(found)


def missed_goals(counted: dict[str, Cost]) -> list[str]:
    return [
        f"{name}: {counted[name].statements:g} statements, and the goal is {goal:g}"
        for name, goal in GOALS.items()
        if counted[name].statements > goal
    ]


async def count() -> dict[str, Cost]:
    return {name: await measure() for name, measure in MEASUREMENTS.items()}


def main() -> None:
    configure_logging("bench", "bench", "error")
    os.environ["PGSSLMODE"] = "disable"
    counted = asyncio.run(count())
    for name, cost in counted.items():
        print(f"{name:<44} {', '.join(f'{unit} {figure:g}' for unit, figure in asdict(cost).items())}")
    if "--update" in sys.argv[1:]:
        content = {name: asdict(cost) for name, cost in counted.items()}
        BASELINE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return
    if found := missed_goals(counted) + differences(counted, json.loads(BASELINE.read_text())):
        print(*found, "If this is meant: ./dev costs --update", sep="\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
