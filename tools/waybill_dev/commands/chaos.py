import asyncio
import logging
import secrets
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from waybill_dev.base.options import read_options
from waybill_dev.base.state import State, find_state
from waybill_dev.chaos.count import CountRow
from waybill_dev.chaos.run import Outcome, run
from waybill_dev.commands.lifecycle import booted, is_up
from waybill_dev.commands.trace import console
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.supervision import control

MINUTES = 2.0


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help=f"How long orders are placed ({MINUTES}).")
@click.option("--orders", type=click.IntRange(min=1), help="How many orders are placed.")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Average number of orders between two strikes.",
)
@click.option(
    "--pause",
    type=click.FloatRange(min=0, min_open=True),
    help="Average number of seconds between two strikes, whatever was ordered.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Repeats the strikes of the run that named this seed.")
def chaos(*, minutes: float | None, orders: int | None, every: int, pause: float | None, seed: int | None) -> None:
    """Places orders while processes are struck, then counts.

    A strike kills, terminates or freezes a process, cuts a server's connections or raises an alarm of the broker. The
    seed decides which process, how, and after how many orders. Counts what was lost, doubled or out of order. Uses the
    running stack, or boots one with a second relay and stops it afterwards. One customer of fifty gets mails about
    orders, because mails cost more than everything else. Exit code 1 on any violation.

    With WAYBILL_HISTORY=FOLDER in the environment of `up`, every process records the steps of its events there, and
    `./dev history FOLDER` checks them.
    """
    if minutes is None and orders is None:
        minutes = MINUTES
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    options = read_options()
    state = find_state()
    started = not is_up(state)
    with booted(state, options, "booting the whole system", quiet=False):
        if started:
            control.call(state, "scale", "orders", "relay", 2)
        # The broker's driver logs every outage, and outages are the point here.
        for name in ("aio_pika", "aiormq"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        say(f"signing up customers; repeat this run with --seed {seed}")
        outcome = asyncio.run(_run(state, minutes=minutes, orders=orders, pause=pause, every=every, seed=seed))
        show(outcome, console())
        if not outcome.is_correct:
            say(f"violations: repeat the strikes with --seed {seed}")
    sys.exit(0 if outcome.is_correct else 1)


async def _run(state: State, **options: Any) -> Outcome:
    try:
        return await run(state, **options)
    except* LocalError as errors:
        raise LocalError(str(errors.exceptions[0]), log=f"{state.logs}/ (./dev logs)") from None


def show(outcome: Outcome, screen: Console) -> None:
    table = Table(title="Count", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("expected", "seen", "lost", "double", "out of order", "repeated"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in outcome.rows:
        table.add_row(row.what, *_figures(row))
    screen.print()
    screen.print(table)
    screen.print()
    purchases, tally = outcome.purchases, outcome.tally
    for what, times in sorted(tally.items()):
        screen.print(f"{times:>5} x {what}")
    screen.print(
        f"{len(purchases.changes)} orders in {outcome.ordering_seconds:.0f} s, all processed after"
        f" {outcome.seconds:.0f} s; {purchases.repeated} requests were sent again; survived: {tally.total()}"
    )
    lost, double, disordered = (
        sum(getattr(row, name) or 0 for row in outcome.rows) for name in ("lost", "double", "disordered")
    )
    screen.print(f"lost: {lost}   double effects: {double}   order violations: {disordered}")


def _figures(row: CountRow) -> tuple[str, ...]:
    figures = (row.expected, row.seen, row.lost, row.double, row.disordered, row.repeated)
    return tuple("" if figure is None else str(figure) for figure in figures)
