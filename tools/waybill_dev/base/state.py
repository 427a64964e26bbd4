"""The state folder (`.dev/`, or what WAYBILL_STATE_DIR names) and the ports remembered in it."""

import errno
import json
import os
import random
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Below the ports that Linux and macOS use for outgoing connections, so that a remembered port is rarely in use when
# the stack boots again.
PORT_RANGE = range(13000, 32000)


@dataclass(frozen=True)
class State:
    """The folder in which one stack keeps everything. `up` and `test` have one each, and so has every checkout."""

    checkout: Path
    folder: Path

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def supervisor_file(self) -> Path:
        """Exists while a supervisor runs: its pid, control port and token."""
        return self.folder / "supervisor.json"

    def make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        self.secrets.mkdir(mode=0o700, exist_ok=True)

    def port(self, name: str, *, preferred: int | None = None) -> int:
        """Reserves a free loopback port for `name`: the remembered one, else `preferred`, else any.

        Call it only while the program that listens on it does not run.
        """
        file = self.folder / "ports.json"
        ports: dict[str, int] = read_json(file) or {}
        reserved = {port for other, port in ports.items() if other != name}
        candidates = [ports.get(name), preferred, *random.sample(PORT_RANGE, 200)]
        port = next(c for c in candidates if c is not None and c not in reserved and is_free(c) and _claim(c))
        if ports.get(name) != port:
            write_json(file, {**ports, name: port})
        return port


def find_state(environment: Mapping[str, str] = os.environ) -> State:
    checkout = Path(__file__).resolve().parents[3]
    folder = environment.get("WAYBILL_STATE_DIR") or checkout / ".dev"
    return State(checkout, Path(folder).absolute())


def is_free(port: int) -> bool:
    """Whether nothing listens on the port, on loopback or on all addresses."""
    with socket.socket() as probe:
        # As servers do. Otherwise a closed connection in TIME_WAIT would block a free port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


_claims: dict[int, socket.socket] = {}


def _claim(port: int) -> bool:
    """Claims the port for this process. False when another running process has claimed it.

    Two checkouts that start at once both see a port as free until one listens on it, and two Envoys would share it.
    The claim is the name of an abstract socket (unix(7), Linux only): the kernel frees it when the process ends.
    """
    if sys.platform == "linux" and port not in _claims:
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0waybill-port-{port}")
        except OSError as error:
            name.close()
            return error.errno != errno.EADDRINUSE
        _claims[port] = name
    return True


def read_json(file: Path) -> dict[str, int] | None:
    try:
        content: dict[str, int] = json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return content


def write_private(file: Path, content: str) -> None:
    """Replaces the file atomically; only its owner may read it."""
    new = file.with_name(f".{file.name}.new")
    new.touch(mode=0o600)
    new.write_text(content)
    new.replace(file)


def write_json(file: Path, content: Mapping[str, object]) -> None:
    write_private(file, json.dumps(content, indent=1) + "\n")
