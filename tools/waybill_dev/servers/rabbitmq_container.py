"""RabbitMQ from a container engine, for machines without RabbitMQ and without packages to unpack."""

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from waybill_dev.base.state import LOOPBACK
from waybill_dev.errors import LocalError
from waybill_dev.progress import say

IMAGE = "rabbitmq:4-management"


def find_engine() -> str | None:
    """Docker or podman: the first one that responds."""
    for engine in ("docker", "podman"):
        if shutil.which(engine) and _run(engine, "info").returncode == 0:
            return engine
    return None


def pull(engine: str) -> None:
    """Pulls the image if it is missing. Raises LocalError with the engine's error output."""
    if _run(engine, "image", "inspect", IMAGE).returncode == 0:
        return
    say(f"pulling {IMAGE} with {engine}")
    done = _run(engine, "pull", "--quiet", IMAGE)
    if done.returncode != 0:
        raise LocalError(f"{engine} could not pull {IMAGE}: {done.stderr.strip()}")


def command(engine: str, folder: Path, environment: Mapping[str, str], ports: Iterable[int]) -> tuple[str, ...]:
    """The command that runs the image like a program: as the caller's user, with `folder` at the same path.

    `ports` are published on loopback. The engine's client passes SIGTERM on to the container. A container that
    outlived its killed client is removed first, by force: its data is in `folder`.
    """
    name = container_name(folder)
    run = [engine, "run", "--rm", "--name", name, "--user", f"{os.getuid()}:{os.getgid()}", "--workdir", str(folder)]
    if engine == "podman":
        run += ["--userns", "keep-id"]
    run += ["--volume", f"{folder}:{folder}"]
    run += [f"--publish={LOOPBACK}:{port}:{port}" for port in ports]
    run += [f"--env={name}={value}" for name, value in environment.items()]
    # Not the image's own entry point: it switches from root to a user that cannot read the folder.
    run += ["--entrypoint", "rabbitmq-server", IMAGE]
    # A SIGTERM during the removal takes effect after it, and then nothing is started.
    script = f"trap stop=yes TERM; {engine} rm --force {name} >/dev/null 2>&1; [ $stop ] || exec {shlex.join(run)}"
    return "sh", "-c", script


def container_name(folder: Path) -> str:
    """A name for each state folder, so that two checkouts can run at the same time."""
    return f"waybill-rabbitmq-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
