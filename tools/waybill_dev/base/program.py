"""A program of the stack, as data, and how a process of it is started."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Program:
    """`ready` is polled until it returns true. It must neither block nor raise."""

    name: str
    command: tuple[str, ...]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 40.0


def spawn(program: Program) -> subprocess.Popen[bytes]:
    """Starts the program in a session of its own: Ctrl-C must reach the supervisor alone, which stops all in order."""
    with program.log.open("ab") as log:
        return subprocess.Popen(
            program.command,
            env=dict(program.environment),
            cwd=program.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(program.stop_signal),  # noqa: PLW1509 - the supervisor has a single thread
        )


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """For `preexec_fn`: the child receives the signal when this process ends, even by SIGKILL. Linux only."""
    parent = os.getpid()

    def arrange() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, number)
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

    return arrange


def base_environment() -> dict[str, str]:
    """The variables that programs inherit: where things are, but not those that change Python or a server."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER", "LOGNAME", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in kept if name in os.environ}
