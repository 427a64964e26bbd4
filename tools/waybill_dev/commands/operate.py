"""`status`, `logs`, and the commands that start, stop and scale single processes."""

import json
import sys
import time

import click

from waybill_dev.base.state import find_state
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.supervision import control
from waybill_dev.supervision.logfiles import Follower, matching
from waybill_dev.supervision.summary import print_lines, print_table

FOLLOW_SECONDS = 0.2
LAST_LINES = 200
NOT_UP: dict[str, object] = {
    "gateway": None,
    "services": {},
    "broker": None,
    "postgres": None,
    "mail": None,
    "admin": None,
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def status(*, as_json: bool) -> None:
    """Prints every process: name, role, pid, state, URL.

    Exit code 3 when the stack is not up.
    """
    try:
        report = control.call(find_state(), "status")
    except control.NotRunning as error:
        print(json.dumps(NOT_UP) if as_json else error)
        sys.exit(3)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print_table(report)


@click.command()
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines.")
def logs(name: str | None, *, follow: bool) -> None:
    """Prints one process's log (NAME or NAME:ROLE), or all."""
    folder = find_state().logs
    names = (name,) if name else ()
    found = matching(folder, names)
    if not found:
        raise LocalError(f"there is no log of {name}" if name else "there are no logs yet")
    follower = Follower(folder, names, since_end=False)
    print_lines(list(follower.lines())[-LAST_LINES if follow else 0 :])
    while follow:
        time.sleep(FOLLOW_SECONDS)
        print_lines(follower.lines())


@click.command()
@click.argument("target", metavar="NAME[:ROLE]")
def start(target: str) -> None:
    """Starts a service, a role or a server.

    The servers are postgres, rabbitmq, mail and gateway. Returns when all processes are ready.
    """
    _perform(f"starting {target}", "start", target)


@click.command()
@click.argument("target", metavar="NAME[:ROLE]")
def stop(target: str) -> None:
    """Stops a service, a role or a server.

    It stays stopped until it is started. Returns when all processes have ended.
    """
    _perform(f"stopping {target}", "stop", target)


@click.command()
@click.argument("target", metavar="NAME[:ROLE]")
def restart(target: str) -> None:
    """Restarts a service, a role or a server.

    The processes of a role restart one after the other.
    """
    _perform(f"restarting {target}", "restart", target)


@click.command()
@click.argument("wanted", metavar="NAME:ROLE=N")
def scale(wanted: str) -> None:
    """Runs N processes of one role, behind the gateway.

    Returns when all of them are ready.
    """
    name, _, count = wanted.partition("=")
    service, _, role = name.partition(":")
    if not count.isdecimal() or not role:
        raise LocalError(f"{wanted}: expected NAME:ROLE=N, such as orders:api=2")
    _perform(f"scaling {service}:{role} to {count}", "scale", service, role, int(count))


def _perform(progress: str, action: str, *arguments: object) -> None:
    say(progress)
    control.call(find_state(), action, *arguments)
    say("done")
