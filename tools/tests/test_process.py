import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from common.testing.plugin import eventually
from waybill_dev.base.program import Program, base_environment
from waybill_dev.errors import LocalError
from waybill_dev.supervision.process import Process, Status

Start = Callable[..., Process]
SLEEPER = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('up', flush=True)
while True: signal.pause()
"""
DYING = "import sys; sys.exit('no database available')"


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Process] = []

    def make(code: str, *, stop_seconds: float = 5) -> Process:
        log = tmp_path / "program.log"

        async def ready() -> bool:
            return "up" in log.read_text()

        program = Program(
            name="program",
            command=(sys.executable, "-c", code),
            log=log,
            ready=ready,
            environment=base_environment(),
            stop_seconds=stop_seconds,
        )
        process = Process(program, role="server")
        process.start()
        started.append(process)
        return process

    yield make
    await asyncio.gather(*(process.stop() for process in started))


async def test_a_process_is_starting_until_it_is_ready(start: Start) -> None:
    process = start(SLEEPER)
    assert process.status is Status.STARTING
    await process.until_running()
    assert process.pid is not None


async def test_a_killed_process_runs_again_within_five_seconds(start: Start) -> None:
    process = start(SLEEPER)
    await process.until_running()
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)

    async def replaced() -> bool:
        return process.status is Status.RUNNING and process.pid not in {None, first}

    await eventually(replaced, within=5)
    assert process.restarts == 1
    assert process.last_exit == -signal.SIGKILL


async def test_a_process_that_keeps_dying_is_restarted_with_back_off_and_the_error_says_why(start: Start) -> None:
    process = start(DYING)
    with pytest.raises(LocalError, match=r"(?s)exit code 1, no database available.*program\.log"):
        await process.until_running()
    assert process.status is Status.BACKOFF


async def test_a_stopped_process_stays_stopped(start: Start) -> None:
    process = start(SLEEPER)
    await process.until_running()
    pid = process.pid
    assert pid is not None
    await process.stop()
    assert process.status is Status.STOPPED
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_process_that_ignores_the_stop_signal_is_killed(start: Start) -> None:
    process = start(STUBBORN, stop_seconds=0.2)
    await process.until_running()
    await asyncio.wait_for(process.stop(), 5)
    assert process.status is Status.STOPPED


async def test_the_children_of_a_stopped_process_are_killed(start: Start, tmp_path: Path) -> None:
    child = tmp_path / "child"
    parent = f"""
import subprocess
child = subprocess.Popen(['sleep', '600'])
open({str(child)!r}, 'w').write(str(child.pid))
{SLEEPER}
"""
    process = start(parent)
    await process.until_running()
    await process.stop()

    async def ended() -> bool:
        return _has_ended(int(await asyncio.to_thread(child.read_text)))

    await eventually(ended, within=5)


def _has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
