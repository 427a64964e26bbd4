"""The stack's first administrator, for tests, demos and a person's first look; made at the first boot."""

import asyncio
import json
import subprocess

from local import credentials, services
from local.databases import identity
from local.failure import LocalError
from local.probes import post_json
from local.progress import say
from local.services import Addresses
from local.state import State, write_json

EMAIL = "admin@waybill.example"


async def ensure_admin(state: State, addresses: Addresses, users_port: int) -> dict[str, str]:
    """Signs him up and promotes him, once per database cluster. Returns `email` and `password`."""
    password = credentials.secret(state, "admin", "password")
    made = state.folder / "admin.json"
    cluster = await identity(addresses.postgres_url)
    if not made.exists() or json.loads(made.read_text()).get("cluster") != cluster:
        say("making the first administrator")
        status, answer = await post_json(
            users_port, "/users", {"name": "Administrator", "email": EMAIL, "password": password}
        )
        if status not in {201, 409}:  # 409: made by a boot that was interrupted after it
            raise LocalError(f"signing up the administrator was answered {status}: {answer[:500]}")
        await _promote(state, addresses)
        write_json(made, {"email": EMAIL, "cluster": cluster})
    return {"email": EMAIL, "password": password}


async def _promote(state: State, addresses: Addresses) -> None:
    process = await asyncio.create_subprocess_exec(
        *services.command(state, "users", "promote", EMAIL, "admin"),
        env=services.environment(state, addresses, "users"),
        cwd=services.folder(state, "users"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise LocalError(f"promoting the administrator failed: {output.decode(errors='replace').strip()[-500:]}")
