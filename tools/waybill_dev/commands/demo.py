import asyncio
import io
import re
from email.message import EmailMessage
from pathlib import Path

import click
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from waybill_dev.base.options import read_options
from waybill_dev.base.state import find_state
from waybill_dev.commands.lifecycle import booted
from waybill_dev.commands.trace import console, show_hops
from waybill_dev.errors import LocalError
from waybill_dev.journeys.order_journey import Journey, travel
from waybill_dev.progress import say
from waybill_dev.supervision import control


@click.command()
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Also write the output as an SVG file."
)
def demo(picture: Path | None) -> None:
    """Takes one order from sign-up to e-mail, and shows each hop.

    Boots the system unless it is up, and stops what it started. Exit code 0 only if the e-mail was received.
    """
    options = read_options()
    state = find_state()
    try:
        with booted(state, options, "booting the whole system (./dev up keeps it running)", quiet=False):
            say("signing up, ordering, and waiting for the e-mail")
            journey = asyncio.run(travel(control.call(state, "status")))
        show(journey, console())
        if picture is not None:
            # Without rich's web font, which a viewer would fetch from another site.
            screen = Console(record=True, width=110, file=io.StringIO())
            show(journey, screen)
            svg = screen.export_svg(title="./dev demo")
            picture.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))
    except LocalError as error:
        raise LocalError(str(error), log=f"{state.logs}/ (./dev logs)") from error


def show(journey: Journey, screen: Console) -> None:
    show_hops(f"Order {journey.order['id']}", journey.hops, screen)
    screen.print(Panel(_letter(journey.mail), title="the e-mail", title_align="left", expand=False))


def _letter(mail: EmailMessage) -> Text:
    head = "\n".join(f"{name}: {mail[name]}" for name in ("From", "To", "Subject", "Date", "Message-ID") if mail[name])
    body = mail.get_body(("plain", "html"))
    return Text(f"{head}\n\n{body.get_content().strip() if body is not None else ''}")
