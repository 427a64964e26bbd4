"""Finds a RabbitMQ to run: the system's, else Debian's packages unpacked into a cache, else a container."""

import glob
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from waybill_dev.bootstrap import debian
from waybill_dev.errors import LocalError
from waybill_dev.servers import rabbitmq_container

SYSTEM_SERVERS = (
    "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server",
    "/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/local/opt/rabbitmq/sbin/rabbitmq-server",
)
ADVICE = """\
RabbitMQ is required, but neither it, nor packages to unpack, nor a running docker or podman was found. Install it with
  Debian, Ubuntu:  sudo apt-get install rabbitmq-server
  Fedora:          sudo dnf install rabbitmq-server
  macOS:           brew install rabbitmq
(./dev runs a node of its own, and does not touch the server that the package may start)
or set WAYBILL_AMQP_URL to the URL of a server."""


@dataclass(frozen=True)
class Programs:
    """Absolute paths of RabbitMQ's start script and of Erlang's name server."""

    server: str
    epmd: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Container:
    """A container engine that has the image."""

    engine: str


def find_broker() -> Programs | Container:
    """Raises LocalError that says what to install."""
    if (programs := find_programs()) is not None:
        return programs
    if (engine := rabbitmq_container.find_engine()) is not None:
        rabbitmq_container.pull(engine)
        return Container(engine)
    raise LocalError(ADVICE)


def find_programs() -> Programs | None:
    """The installed ones, or those of unpacked packages."""
    return _system_programs() or (_unpacked_programs() if debian.is_debian() else None)


def _system_programs() -> Programs | None:
    servers = sorted(path for pattern in SYSTEM_SERVERS for path in glob.glob(pattern))  # noqa: PTH207 - absolute
    erl = shutil.which("erl")
    if not servers or erl is None:
        return None
    return Programs(server=servers[-1], epmd=_find_epmd(Path(erl).resolve().parent))


def _unpacked_programs() -> Programs:
    tree = debian.unpacked("rabbitmq-server", family="erlang-")
    erlang = tree / "usr/lib/erlang/bin"
    server = next((tree / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    environment = {
        "PATH": f"{erlang}:{os.environ['PATH']}",
        "RABBITMQ_HOME": str(server.parents[1]),
        "LD_LIBRARY_PATH": debian.library_path(tree),
    }
    return Programs(server=str(server), epmd=_find_epmd(erlang), environment=environment)


def _find_epmd(folder: Path) -> str:
    """`folder` holds the programs of the Erlang that RabbitMQ runs on."""
    if (folder / "epmd").exists():
        return str(folder / "epmd")
    found = shutil.which("epmd") or next(map(str, folder.parent.glob("erts-*/bin/epmd")), None)
    if found is None:
        raise LocalError("RabbitMQ's Erlang has no epmd")
    return found
