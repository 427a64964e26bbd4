import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import click

from waybill_dev.base.options import Options
from waybill_dev.base.state import State, find_state
from waybill_dev.checks.runner import Check, Outcome, command, locks_agree, run_all
from waybill_dev.commands.lifecycle import is_up, stop
from waybill_dev.progress import say
from waybill_dev.services.programs import ROLES
from waybill_dev.supervision import control
from waybill_dev.supervision.boot import detached

AT_ONCE = 2
# It can't be run by `python -m`, and its script breaks when a checkout is moved.
IMPORT_LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-logo'])"
SOURCES = ("libs/common", "services", "tools", "bench", "tests", "examples")


@click.command()
def check() -> None:
    """Format, lint, types, layers, locks, contracts, migrations, services, manifests. Runs all, shows all failures."""
    base = find_state()
    state = State(base.checkout, base.folder / "check")
    state.make()
    migrated = [name for name in ROLES if any(migrations(base.checkout, name).glob("versions/*.py"))]
    try:
        if migrated and not is_up(state):
            say("booting PostgreSQL for the migrations")
            detached(state, Options(frozenset({"postgres"}), owner=os.getpid()), quiet=True)
        well = asyncio.run(run_all(all_checks(state, migrated), at_once=AT_ONCE, done=_tell))
    finally:
        if is_up(state):
            stop(state)
    sys.exit(0 if well else 1)


def all_checks(state: State, migrated: Sequence[str]) -> list[tuple[str, Check]]:
    root = state.checkout
    existing = [source for source in SOURCES if (root / source).exists()]
    return [
        ("types", command("-m", "mypy", *existing, folder=root)),
        ("format", command("-m", "ruff", "format", "--check", ".", folder=root)),
        ("lint", command("-m", "ruff", "check", ".", folder=root)),
        ("layers", command("-c", IMPORT_LINTER, folder=root)),
        ("locks", locks_agree(root)),
        *((f"migrations of {service}", _drift(state, service)) for service in migrated),
        ("contracts", command("-m", "waybill_dev.checks.contracts", "--check", folder=root)),
        ("contracts keep promises", command("-m", "waybill_dev.checks.contract_compatibility", root, folder=root)),
        ("migrations expand", command("-m", "waybill_dev.checks.migration_safety", root, folder=root)),
        ("services", command("-m", "waybill_dev.checks.services", root, folder=root)),
        ("manifests", command("-m", "waybill_dev.checks.manifests", root, folder=root)),
    ]


def migrations(checkout: Path, service: str) -> Path:
    return checkout / "services" / service / "migrations"


def _drift(state: State, service: str) -> Check:
    """A database made from the migrations alone, compared with the models."""

    async def run() -> str | None:
        server: str = control.call(state, "status")["postgres"]["url"]
        name = f"drift_{service}"
        connection = await asyncpg.connect(server)
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        folder = migrations(state.checkout, service)
        url = f"{server.rpartition('/')[0]}/{name}"
        return await command("-m", "waybill_dev.checks.migration_drift", folder, url, folder=state.checkout)()

    return run


def _tell(outcome: Outcome) -> None:
    mark = "ok  " if outcome.complaint is None else "FAIL"
    print(f"{mark} {outcome.name:<24} {outcome.seconds:5.1f} s", flush=True)
    if outcome.complaint is not None:
        width = shutil.get_terminal_size().columns
        print("\n".join(f"     {line}" for line in outcome.complaint.splitlines()), "─" * min(width, 80), sep="\n")
