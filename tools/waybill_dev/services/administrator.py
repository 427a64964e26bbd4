"""The stack's first administrator, for tests, demos and exploring; created at the first boot."""

import asyncio
import json
import subprocess

from waybill_dev.base import credentials
from waybill_dev.base.probes import post_json
from waybill_dev.base.state import State, write_json
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.servers.databases import identity
from waybill_dev.services import programs
from waybill_dev.services.programs import Addresses

EMAIL = "admin@waybill.example"


async def ensure_admin(state: State, addresses: Addresses, users_port: int) -> dict[str, str]:
    """Signs up and promotes the administrator, once per database cluster. Returns `email` and `password`."""
    password = credentials.secret(state, "admin", "password")
    made = state.folder / "admin.json"
    cluster = await identity(addresses.postgres_url)
    if not made.exists() or json.loads(made.read_text()).get("cluster") != cluster:
        say("creating the first administrator")
        status, answer = await post_json(
            users_port, "/users", {"name": "Administrator", "email": EMAIL, "password": password}
        )
        if status not in {201, 409}:  # 409: created by a boot that was interrupted later
            raise LocalError(f"signing up the administrator was answered {status}: {answer[:500]}")
        await _promote(state, addresses)
        write_json(made, {"email": EMAIL, "cluster": cluster})
    return {"email": EMAIL, "password": password}


async def _promote(state: State, addresses: Addresses) -> None:
    process = await asyncio.create_subprocess_exec(
        *programs.command(state, "users", "promote", EMAIL, "admin"),
        env=programs.environment(state, addresses, "users"),
        cwd=programs.folder(state, "users"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise LocalError(f"promoting the administrator failed: {output.decode(errors='replace').strip()[-500:]}")
