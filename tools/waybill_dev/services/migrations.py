import asyncio
import subprocess

from waybill_dev.base.state import State
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.servers.databases import current_revision, newest_revision
from waybill_dev.services import programs
from waybill_dev.services.programs import Addresses


async def migrate(state: State, addresses: Addresses, service: str) -> None:
    """Brings the service's database to its newest migration; costs one query where it is there already."""
    versions = programs.folder(state, service) / "migrations" / "versions"
    current, newest = await current_revision(addresses.database_url(state, service)), newest_revision(versions)
    if current > newest:
        say(f"the database of {service} is ahead, at revision {current}; the code's is {newest}: nothing to migrate")
    if current >= newest:
        return
    say(f"migrating the database of {service}")
    log = state.logs / f"{service}-migrate.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *programs.command(state, service, "migrate"),
            env=programs.environment(state, addresses, service),
            cwd=programs.folder(state, service),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        if await process.wait() != 0:
            raise LocalError(f"the migration of {service} failed: {last_line(log.read_text())}", log=log)


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "(nothing in the log)")
