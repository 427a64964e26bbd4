"""A PgBouncer in transaction mode with a small pool, in front of a PostgreSQL server."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from common.testing.plugin import eventually
from waybill_dev.base.privileges import drop_root, give_to
from waybill_dev.base.probes import listens
from waybill_dev.base.program import Program, base_environment, spawn
from waybill_dev.base.state import LOOPBACK
from waybill_dev.bootstrap import debian

POOL = 4
"""Sessions of the server for each service; their processes hold ten times as many connections to the pooler."""
CONFIGURATION = """\
[databases]
* = host={host} port={postgres_port}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 1000
auth_type = scram-sha-256
auth_file = {folder}/users.txt
"""


class Pooler:
    def __init__(self, folder: Path, port: int, postgres_port: int, passwords: Mapping[str, str]) -> None:
        self.folder, self.port = folder, port
        folder.mkdir()
        users, configuration = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text("".join(f'"{name}" "{password}"\n' for name, password in passwords.items()))
        configuration.write_text(
            CONFIGURATION.format(host=LOOPBACK, port=port, postgres_port=postgres_port, pool=POOL, folder=folder)
        )
        give_to(folder, users, configuration)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    async def start(self) -> None:
        binary, environment = _program()
        command = (*drop_root(self.folder), binary, str(self.folder / "pgbouncer.ini"))

        async def ready() -> bool:
            return await listens(self.port)

        program = Program("pgbouncer", command, self.folder / "log", ready, environment)
        self._process = await asyncio.to_thread(spawn, program)
        await eventually(ready)

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await asyncio.to_thread(self._process.wait)


def _program() -> tuple[str, dict[str, str]]:
    """The system's PgBouncer, else Debian's or Ubuntu's package, unpacked."""
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is not None:
        return found, base_environment()
    tree = debian.unpacked("pgbouncer")
    return str(tree / "usr/sbin/pgbouncer"), {**base_environment(), "LD_LIBRARY_PATH": debian.library_path(tree)}


@contextlib.asynccontextmanager
async def running_pooler(
    folder: Path, port: int, postgres_port: int, passwords: Mapping[str, str]
) -> AsyncIterator[Pooler]:
    for above in folder.parents[:3]:  # pytest's folders, which PgBouncer's user has to enter
        with contextlib.suppress(PermissionError):
            above.chmod(above.stat().st_mode | 0o011)
    pooler = Pooler(folder, port, postgres_port, passwords)
    try:
        await pooler.start()
        yield pooler
    finally:
        await pooler.kill()
