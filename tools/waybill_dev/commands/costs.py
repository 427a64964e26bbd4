import os
import subprocess
import sys

import click

from waybill_dev.base.options import BACKING, Options
from waybill_dev.base.state import State, find_state
from waybill_dev.commands.lifecycle import booted
from waybill_dev.commands.test import servers


@click.command()
@click.option("--update", is_flag=True, help="Write the baseline, bench/costs.json.")
def costs(*, update: bool) -> None:
    """Counts statements and bytes of log of an order and an event.

    Exact on any machine. Exit code 1 if they differ from the baseline, as in `./dev check`.
    """
    base = find_state()
    state = State(base.checkout, base.folder / "check")
    state.make()
    with booted(state, Options(BACKING), "booting PostgreSQL and RabbitMQ"):
        command = [sys.executable, "-m", "bench.costs", *["--update"] * update]
        done = subprocess.run(command, cwd=base.checkout, env={**os.environ, **servers(state)}, check=False)
    sys.exit(done.returncode)
