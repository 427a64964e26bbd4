import asyncio
import dataclasses
import os
import sys
from email.message import EmailMessage

import click
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from local import control
from local.boot import detached
from local.commands.lifecycle import is_up, stop
from local.failure import LocalError
from local.journey import Journey, travel
from local.options import read_options
from local.progress import say
from local.state import find_state


@click.command()
def demo() -> None:
    """One order from sign-up to e-mail through the whole system, shown hop by hop.

    Boots what is not up and stops what it started. Exit code 0 only if the e-mail was really received.
    """
    options = read_options()
    state = find_state()
    started = not is_up(state)
    try:
        if started:
            say("booting the whole system (./dev up keeps it running)")
            detached(state, dataclasses.replace(options, owner=os.getpid()), quiet=True)
        say("signing up, ordering, and waiting for the e-mail")
        show(asyncio.run(travel(control.call(state, "status"))), _console())
    except LocalError as error:
        raise LocalError(str(error), log=f"{state.logs}/ (./dev logs)") from error
    finally:
        if started and is_up(state):
            stop(state)


def _console() -> Console:
    # Into a file or a pipe, nothing needs to wrap.
    return Console() if sys.stdout.isatty() else Console(width=120)


def show(journey: Journey, console: Console) -> None:
    order, first = journey.order, journey.hops[0].at
    table = Table(title=f"Order {order['id']}", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("where", style="cyan", no_wrap=True)
    table.add_column("what")
    for hop in journey.hops:
        after = f"{(hop.at - first).total_seconds() * 1000:.0f} ms"
        table.add_row(f"{hop.at:%H:%M:%S.%f}"[:-3], after, hop.where, Text(hop.what))
    console.print()
    console.print(table)
    console.print()
    console.print(Panel(_letter(journey.mail), title="the e-mail", title_align="left", expand=False))


def _letter(mail: EmailMessage) -> Text:
    head = "\n".join(f"{name}: {mail[name]}" for name in ("From", "To", "Subject", "Date", "Message-ID") if mail[name])
    body = mail.get_body(("plain", "html"))
    return Text(f"{head}\n\n{body.get_content().strip() if body is not None else ''}")
