"""Grandchildren whose parent died (PostgreSQL's backends, Erlang's helpers) become the supervisor's own, on Linux.

So none outlives it, and none stays as a zombie where the machine's first process reaps nothing (in containers).
"""

import contextlib
import os
from collections.abc import Set as AbstractSet

import psutil

from waybill_dev.base.program import libc

PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """From now on, orphans among this process's descendants are its children."""
    if libc is not None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap(suspects: AbstractSet[int]) -> set[int]:
    """Collects the exit codes of children that are dead and were so at the last look, and returns those dead since.

    A child that somebody waits for is not dead for that long, and its exit code must be left to who waits.
    """
    dead = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE:
                if child.pid in suspects:
                    os.waitpid(child.pid, os.WNOHANG)
                else:
                    dead.add(child.pid)
    return dead


def end_all() -> None:
    """Kills and reaps whatever descends from this process. For its last moment."""
    descendants = psutil.Process().children(recursive=True)
    for process in descendants:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for process in descendants:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, 0)
