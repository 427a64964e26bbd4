import os

import click

from waybill_dev.base.state import find_state
from waybill_dev.errors import LocalError
from waybill_dev.services import programs
from waybill_dev.services.programs import ROLES
from waybill_dev.supervision import control


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("service")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ops(service: str, command: tuple[str, ...]) -> None:
    """Runs an operators' command of a service.

    It is `python -m SERVICE COMMAND…` with the environment of the running stack.
    """
    if service not in ROLES:
        raise LocalError(f"{service}: no such service. Known: {', '.join(ROLES)}.")
    state = find_state()
    environment = control.call(state, "environment", service)
    os.chdir(programs.folder(state, service))
    words = programs.command(state, service, *command)
    os.execve(words[0], words, environment)  # noqa: S606
