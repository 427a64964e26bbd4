"""Generates files that are committed: locks, contracts and the page of settings."""

import os
import subprocess
import sys
from pathlib import Path

import click

from waybill_dev.base.state import find_state
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.services.programs import ROLES

OWN = ("waybill-common", *(f"waybill-{service}" for service in ROLES))


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[--upgrade | --upgrade-package NAME]…")
def lock(options: tuple[str, ...]) -> None:
    """Writes all requirements.lock files.

    They follow from the pyproject.toml files. Pinned versions stay, unless --upgrade or --upgrade-package is given.
    """
    checkout = find_state().checkout
    say("requirements.lock")
    _compile(checkout, "--group", "dev", "pyproject.toml", "-o", "requirements.lock", *options)
    for service in ROLES:
        folder = f"services/{service}"
        say(f"{folder}/requirements.lock")
        _compile(checkout, "-c", "requirements.lock", f"{folder}/pyproject.toml", "-o", f"{folder}/requirements.lock")


@click.command()
def contracts() -> None:
    """Writes contracts/ and docs/settings.md from the code.

    contracts/ has each service's OpenAPI and AsyncAPI documents, and the schema of each event.
    """
    os.execv(sys.executable, [sys.executable, "-m", "waybill_dev.checks.contracts"])  # noqa: S606


def _compile(checkout: Path, *arguments: str) -> None:
    command = [
        *(str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--no-header"),
        *("--universal", "--generate-hashes", "--no-emit-index-url"),
        *(f"--no-emit-package={package}" for package in OWN),
        *arguments,
    ]
    if subprocess.run(command, cwd=checkout, check=False, stdout=subprocess.DEVNULL).returncode != 0:
        raise LocalError("uv could not write the lock; its reasons are above")
