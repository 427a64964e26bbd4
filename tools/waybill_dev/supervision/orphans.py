"""Grandchildren whose parent died (PostgreSQL's backends, Erlang's helpers) become the supervisor's children. On Linux.

So none outlives the supervisor, and none stays a zombie in a container whose first process does not reap.
"""

import contextlib
import os
from collections.abc import Set as AbstractSet

import psutil

from waybill_dev.base.program import libc

PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """From now on, orphaned descendants of this process become its children."""
    if libc is not None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap(earlier_zombies: AbstractSet[int]) -> set[int]:
    """Reaps children that are zombies now and were among `earlier_zombies`. Returns the zombies that are new.

    A child with a waiting parent task is not a zombie for two calls: its exit code stays for the waiting task.
    """
    new_zombies = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE:
                if child.pid in earlier_zombies:
                    os.waitpid(child.pid, os.WNOHANG)
                else:
                    new_zombies.add(child.pid)
    return new_zombies


def end_all() -> None:
    """Kills and reaps all descendants of this process, just before it exits."""
    descendants = psutil.Process().children(recursive=True)
    for process in descendants:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for process in descendants:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, 0)
