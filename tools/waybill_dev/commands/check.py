import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from waybill_dev.base.options import BACKING, Options
from waybill_dev.base.state import State, find_state
from waybill_dev.checks import scratch_database
from waybill_dev.checks.runner import Check, Outcome, command, locks_agree, run_all
from waybill_dev.commands.lifecycle import booted
from waybill_dev.commands.test import servers
from waybill_dev.model import spin
from waybill_dev.services.programs import ROLES

AT_ONCE = 2
# import-linter cannot be run by `python -m`, and its script breaks when a checkout is moved.
IMPORT_LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-logo'])"
SOURCES = ("libs/common", "services", "tools", "bench", "tests", "examples")


@click.command()
def check() -> None:
    """Runs all checks of the sources, and shows all failures.

    Format, lint, types, layers, locks, contracts, migrations, services, manifests, counted costs and the model
    (`./dev model`).
    """
    base = find_state()
    state = State(base.checkout, base.folder / "check")
    state.make()
    migrated = [name for name in ROLES if any(migrations(base.checkout, name).glob("versions/*.py"))]
    with booted(state, Options(BACKING), "booting PostgreSQL and RabbitMQ, for migrations and costs"):
        passed = asyncio.run(run_all(all_checks(state, migrated), at_once=AT_ONCE, done=_print_outcome))
    if spin.find_spin() is None:
        print(f"skip model: {spin.ADVICE}")
    sys.exit(0 if passed else 1)


def all_checks(state: State, migrated: Sequence[str]) -> list[tuple[str, Check]]:
    root = state.checkout
    models = [("model", command("-m", "waybill_dev", "model", "--fast", folder=root))] if spin.find_spin() else []
    existing = [source for source in SOURCES if (root / source).exists()]
    return [
        ("types", command("-m", "mypy", *existing, folder=root)),
        ("format", command("-m", "ruff", "format", "--check", ".", folder=root)),
        ("lint", command("-m", "ruff", "check", ".", folder=root)),
        ("layers", command("-c", IMPORT_LINTER, folder=root)),
        ("counted costs", command("-m", "bench.costs", folder=root, environment=servers(state))),
        ("locks", locks_agree(root)),
        *((f"migrations of {service}", _drift(state, service)) for service in migrated),
        ("contracts", command("-m", "waybill_dev.checks.contracts", "--check", folder=root)),
        ("contracts keep promises", command("-m", "waybill_dev.checks.contract_compatibility", root, folder=root)),
        ("migrations expand", command("-m", "waybill_dev.checks.migration_safety", root, folder=root)),
        ("services", command("-m", "waybill_dev.checks.services", root, folder=root)),
        ("manifests", command("-m", "waybill_dev.checks.manifests", root, folder=root)),
        *models,
    ]


def migrations(checkout: Path, service: str) -> Path:
    return checkout / "services" / service / "migrations"


def _drift(state: State, service: str) -> Check:
    """A check that applies the migrations to an empty database and compares it with the models."""

    async def run() -> str | None:
        folder = migrations(state.checkout, service)
        url = await scratch_database.create(state, f"drift_{service}")
        return await command("-m", "waybill_dev.checks.migration_drift", folder, url, folder=state.checkout)()

    return run


def _print_outcome(outcome: Outcome) -> None:
    mark = "ok  " if outcome.complaint is None else "FAIL"
    print(f"{mark} {outcome.name:<24} {outcome.seconds:5.1f} s", flush=True)
    if outcome.complaint is not None:
        width = shutil.get_terminal_size().columns
        print("\n".join(f"     {line}" for line in outcome.complaint.splitlines()), "─" * min(width, 80), sep="\n")
