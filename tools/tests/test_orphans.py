"""Which children the supervisor reaps."""

import os
import subprocess
import sys

import pytest

from waybill_dev.supervision import orphans


def dead_child() -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return child


def test_the_exit_code_of_a_child_that_just_died_is_left_for_its_waiting_task() -> None:
    child = dead_child()
    assert child.pid in orphans.reap(set())
    assert child.wait() == 7


def test_a_child_without_a_waiting_task_is_reaped_by_the_next_call() -> None:
    child = dead_child()
    assert child.pid not in orphans.reap(orphans.reap(set()))
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, 0)
    child.returncode = 7
