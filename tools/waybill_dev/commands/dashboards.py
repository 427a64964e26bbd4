import asyncio
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import click

from waybill_dev.base.options import read_options
from waybill_dev.base.state import State, find_state
from waybill_dev.chaos.shoppers import buy, open_shop
from waybill_dev.commands.lifecycle import booted
from waybill_dev.dashboards.drawing import Panel, draw
from waybill_dev.dashboards.prometheus import Prometheus, scraping
from waybill_dev.progress import say
from waybill_dev.supervision import control

CUSTOMERS = 4
ORDERING_SECONDS = 60.0  # before the outage, and again after it
OUTAGE_SECONDS = 30.0
STEPS = 120  # points of each line
GRID_COLUMNS, GRID_ROWS = 12, 8  # Grafana's units of one of our panels


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path("docs/images"))
def dashboards(folder: Path) -> None:
    """Draws the Grafana dashboards from a run.

    Writes SVG files into FOLDER (docs/images). Places orders for 150 s, with RabbitMQ stopped for 30 s of them, while a
    Prometheus scrapes all processes.
    """
    state = find_state()
    with booted(state, read_options(), "booting the whole system", quiet=False):
        asyncio.run(_run(state, folder))


async def _run(state: State, folder: Path) -> None:
    status = control.call(state, "status")
    observability = state.checkout / "deploy/observability"
    async with scraping(state, status, observability / "prometheus/rules.yml") as prometheus:
        say("placing orders, with an outage of RabbitMQ in between")
        start = await _place_orders(state, status)
        end = time.time()
        for file in sorted((observability / "grafana/dashboards").glob("*.json")):
            described = json.loads(file.read_text())
            panels = [await _panel(prometheus, panel, start, end) for panel in described["panels"]]
            picture = folder / f"dashboard-{file.stem}.svg"
            picture.write_text(draw(described["title"], panels, start, end))
            say(f"wrote {picture}")


async def _place_orders(state: State, status: dict[str, Any]) -> float:
    """Returns when the first order was placed."""
    purchases, shoppers, staff = await open_shop(status)
    start, stop = time.time(), asyncio.Event()

    async def shop(number: int) -> None:
        while not stop.is_set():
            await buy(shoppers[number], purchases.customers[number], staff, purchases, len(purchases.changes))

    async with asyncio.TaskGroup() as group:
        for number in range(CUSTOMERS):
            group.create_task(shop(number))
        await asyncio.sleep(ORDERING_SECONDS)
        await asyncio.to_thread(control.call, state, "stop", "rabbitmq")
        await asyncio.sleep(OUTAGE_SECONDS)
        await asyncio.to_thread(control.call, state, "start", "rabbitmq")
        await asyncio.sleep(ORDERING_SECONDS)
        stop.set()
    for shopper in [*shoppers, staff]:
        await shopper.close()
    return start


async def _panel(prometheus: Prometheus, panel: dict[str, Any], start: float, end: float) -> Panel:
    lines = [
        (_legend(target.get("legendFormat", ""), series.labels), series)
        for target in panel["targets"]
        for series in await prometheus.query(target["expr"], start, end, (end - start) / STEPS)
    ]
    lines.sort(key=lambda line: -max((value for _, value in line[1].points if math.isfinite(value)), default=0))
    position = panel["gridPos"]
    unit = panel["fieldConfig"]["defaults"].get("unit", "")
    return Panel(panel["title"], unit, position["x"] // GRID_COLUMNS, position["y"] // GRID_ROWS, lines)


def _legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)
