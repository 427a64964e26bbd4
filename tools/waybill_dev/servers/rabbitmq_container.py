"""RabbitMQ from a container engine, where the machine has neither it nor packages to unpack it from."""

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
    """Docker or podman, the first that answers."""
    for engine in ("docker", "podman"):
        if shutil.which(engine) and _run(engine, "info").returncode == 0:
            return engine
    return None


def pull(engine: str) -> None:
    """Has the image ready. Raises LocalError with the engine's last words."""
    if _run(engine, "image", "inspect", IMAGE).returncode == 0:
        return
    say(f"pulling {IMAGE} with {engine}")
    done = _run(engine, "pull", "--quiet", IMAGE)
    if done.returncode != 0:
        raise LocalError(f"{engine} could not pull {IMAGE}: {done.stderr.strip()}")


def command(engine: str, folder: Path, environment: Mapping[str, str], ports: Iterable[int]) -> tuple[str, ...]:
    """Runs the image as if it were a program: the caller's user, `folder` at its own path, ports on loopback.

    It ends with SIGTERM, as the client hands that on. A container that outlived its client (that was killed) is
    removed first, as abruptly: its data is in `folder`.
    """
    name = container_name(folder)
    run = [engine, "run", "--rm", "--name", name, "--user", f"{os.getuid()}:{os.getgid()}", "--workdir", str(folder)]
    if engine == "podman":
        run += ["--userns", "keep-id"]
    run += ["--volume", f"{folder}:{folder}"]
    run += [f"--publish={LOOPBACK}:{port}:{port}" for port in ports]
    run += [f"--env={name}={value}" for name, value in environment.items()]
    # Past the image's own entry point, which makes root an ordinary user, who can't read the folder.
    run += ["--entrypoint", "rabbitmq-server", IMAGE]
    # A SIGTERM that comes during the removal waits for its end, and nothing is started then.
    script = f"trap stop=yes TERM; {engine} rm --force {name} >/dev/null 2>&1; [ $stop ] || exec {shlex.join(run)}"
    return "sh", "-c", script


def container_name(folder: Path) -> str:
    """One for each state folder: two checkouts run side by side."""
    return f"waybill-rabbitmq-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
