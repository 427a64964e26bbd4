import dataclasses
import shutil
import time

import click

from waybill_dev.base.options import EVERYTHING, read_options
from waybill_dev.base.state import State, find_state
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.supervision import control
from waybill_dev.supervision.boot import detached, foreground
from waybill_dev.supervision.leftovers import end_leftovers
from waybill_dev.supervision.supervisor import is_supervised

DATA = ("postgres", "postgres.new", "rabbitmq", "mail", "gateway", "logs", "admin.json")
STOP_SECONDS = 60.0


@click.command()
@click.option("--detach", is_flag=True, help="Return once everything is ready.")
@click.option("--only", metavar="PARTS", help=f"Boot these alone, comma separated: {', '.join(sorted(EVERYTHING))}.")
@click.option("--owner", type=int, metavar="PID", help="Stop when this process has ended.")
def up(*, detach: bool, only: str | None, owner: int | None) -> None:
    """Boots the whole system; stays in the foreground with its logs, unless detached."""
    options = read_options(frozenset(only.split(",")) if only else EVERYTHING)
    options = dataclasses.replace(options, owner=owner)
    state = find_state()
    if is_up(state):
        print(
            "already up, with the settings it was started with (./dev status, ./dev logs -f; ./dev down to change them)"
        )
        return
    if detach:
        detached(state, options)
    else:
        foreground(state, options)


@click.command()
def down() -> None:
    """Stops everything; data stays."""
    state = find_state()
    if not stop(state):
        print("nothing is running")


@click.command()
def reset() -> None:
    """Stops everything and deletes the data; addresses and passwords stay."""
    state = find_state()
    stop(state)
    for name in DATA:
        path = state.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    print(f"deleted the data in {state.folder}")


def is_up(state: State) -> bool:
    try:
        control.call(state, "status")
    except control.NotRunning:
        return False
    return True


def stop(state: State, *, quiet: bool = False) -> bool:
    """Whether there was something to stop; returns when all of it is gone."""
    try:
        processes = control.call(state, "status")["processes"]
        control.call(state, "down")
    except control.NotRunning:
        if is_supervised(state):
            raise LocalError("a supervisor is starting or ending; try again in a moment") from None
        return bool(end_leftovers(state))
    if not quiet:
        say(f"stopping {len(processes)} processes")
    deadline = time.monotonic() + STOP_SECONDS
    while is_supervised(state):
        if time.monotonic() > deadline:
            raise LocalError("the supervisor does not come to an end", log=state.logs / "supervisor.log")
        time.sleep(0.05)
    return True
