import asyncio
import subprocess
import sys
from pathlib import Path

import click

from waybill_dev.base.options import Options
from waybill_dev.base.state import State, find_state
from waybill_dev.checks import migration_safety, scratch_database
from waybill_dev.commands.lifecycle import booted
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.services.programs import ROLES


@click.command()
@click.argument("service")
@click.argument("message")
@click.option("--empty", is_flag=True, help="Write a migration to fill in, without comparing the models.")
def migration(service: str, message: str, *, empty: bool) -> None:
    """Writes a service's next migration from its models.

    MESSAGE says what changes, as in "add a channel to orders". Prints the written file, and the changes in it that
    would break a running version (docs/migrations.md). CHECK constraints have to be written by hand.
    """
    if service not in ROLES:
        raise LocalError(f"{service}: no such service. Known: {', '.join(ROLES)}.")
    base = find_state()
    state = State(base.checkout, base.folder / "migration")
    state.make()
    with booted(state, Options(frozenset({"postgres"})), "booting PostgreSQL to compare the models with"):
        written = _write(state, service, message, empty=empty)
    if written is None:
        print(f"the models and migrations of {service} agree: nothing to write (--empty writes a file to fill in)")
        return
    print(written.relative_to(base.checkout))
    for complaint in migration_safety.complaints_about(written, base.checkout):
        say(complaint)


def _write(state: State, service: str, message: str, *, empty: bool) -> Path | None:
    folder = state.checkout / "services" / service / "migrations"
    url = asyncio.run(scratch_database.create(state, f"migration_{service}"))
    words = ["-m", "common.db.new_migration", str(folder), url, message, *(["--empty"] if empty else [])]
    done = subprocess.run([sys.executable, *words], cwd=state.checkout, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise LocalError("the migration could not be generated; the reason is above")
    if not done.stdout:
        return None
    written = Path(done.stdout.strip())
    for fix in (["check", "--quiet", "--fix", "--select=I"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *fix, written], cwd=state.checkout, check=True)
    return written
