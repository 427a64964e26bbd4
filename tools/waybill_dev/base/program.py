"""What to run: one program of the stack, as data, and how a process of it is made."""

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
    """`ready` is asked again and again until it is true; it neither blocks nor raises."""

    name: str
    command: tuple[str, ...]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 40.0


def spawn(program: Program) -> subprocess.Popen[bytes]:
    """Starts it in a session of its own (a terminal's Ctrl-C must not reach it: the supervisor stops in order)."""
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
    """For `preexec_fn`: the process gets the signal when this one ends, even by SIGKILL. On Linux; else nothing."""
    parent = os.getpid()

    def arrange() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, number)
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

    return arrange


def base_environment() -> dict[str, str]:
    """What programs get from the caller's environment: where things are, not how Python or a server behaves."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER", "LOGNAME", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in kept if name in os.environ}
