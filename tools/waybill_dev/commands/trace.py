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
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def trace(order_id: UUID, *, as_json: bool) -> None:
    """Prints one order's way through all services so far, hop by hop with its times.

    Exit code 1 when there is no such order or the stack is not up, 2 when ORDER_ID is no UUID.
    """
    hops = asyncio.run(order_trace.trace(control.call(find_state(), "status"), order_id))
    if as_json:
        told = [{"at": hop.at.isoformat(), "where": hop.where, "what": hop.what} for hop in hops]
        print(json.dumps({"order_id": str(order_id), "hops": told}, indent=2))
    else:
        show_hops(f"Order {order_id}", hops, console())


def console() -> Console:
    # Into a file or a pipe, nothing needs to wrap.
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
