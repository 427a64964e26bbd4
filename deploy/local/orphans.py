"""Grandchildren whose parent died (PostgreSQL's backends, Erlang's helpers) become the supervisor's own, on Linux.

So none outlives it, and none stays as a zombie where the machine's first process reaps nothing (in containers).
"""

import contextlib
import os
from collections.abc import Set as AbstractSet

import psutil

from local.program import libc

PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """From now on, orphans among this process's descendants are its children."""
    if libc is not None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap(known: AbstractSet[int]) -> None:
    """Collects the exit codes of dead children other than the `known` pids, for which somebody waits."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.pid not in known and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def end_all() -> None:
    """Kills and reaps whatever descends from this process. For its last moment."""
    descendants = psutil.Process().children(recursive=True)
    for process in descendants:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for process in descendants:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, 0)
