import dataclasses
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from waybill_dev.base.options import EVERYTHING, Options, read_options
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
@click.option("--detach", is_flag=True, help="Return when everything is ready.")
@click.option("--only", metavar="PARTS", help=f"Boot only these, comma separated: {', '.join(sorted(EVERYTHING))}.")
@click.option("--owner", type=int, metavar="PID", help="Stop when this process has ended.")
def up(*, detach: bool, only: str | None, owner: int | None) -> None:
    """Boots the whole system and shows its logs.

    Ctrl-C stops everything. With --detach it keeps running in the background.
    """
    options = read_options(frozenset(only.split(",")) if only else EVERYTHING)
    options = dataclasses.replace(options, owner=owner)
    state = find_state()
    if is_up(state):
        print(
            "already up, with the settings of its start (./dev status, ./dev logs -f; ./dev down before changing them)"
        )
        return
    if detach:
        detached(state, options)
    else:
        foreground(state, options)


@click.command()
def down() -> None:
    """Stops everything. The data stays."""
    state = find_state()
    if not stop(state):
        print("nothing is running")


@click.command()
def reset() -> None:
    """Stops everything and deletes the data.

    Addresses and passwords stay.
    """
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


@contextmanager
def booted(state: State, options: Options, purpose: str, *, quiet: bool = True) -> Iterator[None]:
    """The stack is up within the block. Unless it was up before, it is stopped after the block, or with this process.

    `purpose` is printed when it is booted, and with `quiet` nothing is printed when it is stopped.
    """
    started = not is_up(state)
    try:
        if started:
            say(purpose)
            detached(state, dataclasses.replace(options, owner=os.getpid()), quiet=True)
        yield
    finally:
        if started and is_up(state):
            stop(state, quiet=quiet)


def stop(state: State, *, quiet: bool = False) -> bool:
    """Stops the stack and waits for its end. Returns whether anything ran."""
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
            raise LocalError("the supervisor does not end", log=state.logs / "supervisor.log")
        time.sleep(0.05)
    return True
