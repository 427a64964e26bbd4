import asyncio
import json
import sys
from collections.abc import Sequence
from uuid import UUID

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from waybill_dev.base.state import find_state
from waybill_dev.journeys import order_trace
from waybill_dev.supervision import control


@click.command()
@click.argument("order_id", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def trace(order_id: UUID, *, as_json: bool) -> None:
    """Traces one order through all services, with times.

    Exit code 1 when the order does not exist or the stack is not up, 2 when ORDER_ID is not a UUID.
    """
    hops = asyncio.run(order_trace.trace(control.call(find_state(), "status"), order_id))
    if as_json:
        rows = [{"at": hop.at.isoformat(), "where": hop.where, "what": hop.what} for hop in hops]
        print(json.dumps({"order_id": str(order_id), "hops": rows}, indent=2))
    else:
        show_hops(f"Order {order_id}", hops, console())


def console() -> Console:
    # Rich takes 80 columns for a file or a pipe, which would wrap the tables.
    return Console() if sys.stdout.isatty() else Console(width=120)


def show_hops(title: str, hops: Sequence[order_trace.Hop], screen: Console) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("where", style="cyan", no_wrap=True)
    table.add_column("what")
    for hop in hops:
        after = f"{(hop.at - hops[0].at).total_seconds() * 1000:.0f} ms"
        table.add_row(f"{hop.at:%H:%M:%S.%f}"[:-3], after, hop.where, Text(hop.what))
    screen.print()
    screen.print(table)
    screen.print()
