import os

import click

from local import control, services
from local.failure import LocalError
from local.services import ROLES
from local.state import find_state


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("service")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ops(service: str, command: tuple[str, ...]) -> None:
    """Runs an operators' command of a service against the running stack: `python -m SERVICE COMMAND…`."""
    if service not in ROLES:
        raise LocalError(f"{service}: no such service. There are {', '.join(ROLES)}.")
    state = find_state()
    environment = control.call(state, "environment", service)
    os.chdir(services.folder(state, service))
    words = services.command(state, service, *command)
    os.execve(words[0], words, environment)  # noqa: S606
