import asyncio
import sys
from collections import Counter
from pathlib import Path

import click

from waybill_dev.base.state import find_state
from waybill_dev.commands.lifecycle import is_up
from waybill_dev.history import databases
from waybill_dev.history.reading import read
from waybill_dev.history.rules import History
from waybill_dev.supervision import control

SHOWN = 20


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def history(folder: Path) -> None:
    """Checks the recorded steps of events.

    Processes record them in the folder that WAYBILL_HISTORY names. Each step must be one that the model allows after
    those before it (docs/model). While the stack is up and at rest, its databases are compared, too. Exit code 1 on a
    violation.
    """
    checked = History()
    for step in read(folder):
        checked.add(step)
    if is_up(find_state()):
        asyncio.run(databases.compare(checked, control.call(find_state(), "status")))
    for violation in checked.violations[:SHOWN]:
        at = f", by {violation.step.process}" if violation.step else ""
        click.echo(f"event {violation.event}{at}: {violation.rule}")
    for rule, times in Counter(violation.rule for violation in checked.violations).most_common():
        click.echo(f"{times:>7} x {rule}")
    click.echo(f"{checked.steps} steps of {checked.events} events, violations: {len(checked.violations)}")
    sys.exit(1 if checked.violations else 0)
