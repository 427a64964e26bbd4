"""One supervised process: started, watched, restarted when it dies, and stopped on request."""

import asyncio
import contextlib
import enum
import os
import signal
import subprocess
import time
from collections.abc import Callable

from waybill_dev.base.program import Program, spawn
from waybill_dev.errors import LocalError

# Each probe costs the probed process time, while it is busy starting.
READY_POLL_SECONDS = 0.2
BACKOFF_SECONDS = (0.2, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
BOOT_SECONDS = 120.0
HOPELESS_DEATHS = 4  # in a row; then a caller that waits for readiness gives up
STEADY_SECONDS = 30.0  # a process that ran this long starts counting its deaths from 0


class Status(enum.StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPED = "stopped"


class Process:
    """Owns at most one operating system process of `program` at a time.

    `changed` is called after every change of `status`.
    """

    def __init__(self, program: Program, *, role: str, changed: Callable[[], None] = lambda: None) -> None:
        self.program = program
        self.role = role
        self.status = Status.STOPPED
        self.restarts = 0
        self.deaths_in_a_row = 0
        self.pid: int | None = None
        self.last_exit: int | None = None
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._set(Status.STARTING)
            self.deaths_in_a_row = 0
            self._task = asyncio.create_task(self._keep_running(), name=self.program.name)

    async def stop(self) -> None:
        """Sends the stop signal, and SIGKILL after `stop_seconds`. Returns once the process has ended."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait({task})
        if self._popen is not None:
            await _end(self._popen, self.program)
        self._forget_process()
        self._set(Status.STOPPED)

    async def until_running(self) -> None:
        """Returns once it is ready. Raises LocalError when it keeps dying or is not ready within BOOT_SECONDS."""
        deadline = time.monotonic() + BOOT_SECONDS
        while self.status is not Status.RUNNING:
            if self.deaths_in_a_row >= HOPELESS_DEATHS:
                raise LocalError(f"{self.program.name} keeps dying: {self._last_output()}", log=self.program.log)
            if self.status is Status.STOPPED or time.monotonic() > deadline:
                raise LocalError(f"{self.program.name} did not become ready", log=self.program.log)
            await asyncio.sleep(READY_POLL_SECONDS / 2)

    def _last_output(self) -> str:
        lines = self.program.log.read_text(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing in its log")
        return f"exit code {self.last_exit}, {last[:300]}"

    async def _keep_running(self) -> None:
        while True:
            began = time.monotonic()
            self._popen = spawn(self.program)
            self.pid = self._popen.pid
            self._set(Status.STARTING)
            self.last_exit = await self._watch(self._popen)
            self._forget_process()
            if time.monotonic() - began > STEADY_SECONDS:
                self.deaths_in_a_row = 0
            delay = BACKOFF_SECONDS[min(self.deaths_in_a_row, len(BACKOFF_SECONDS) - 1)]
            self.deaths_in_a_row += 1
            self.restarts += 1
            self._set(Status.BACKOFF)
            await asyncio.sleep(delay)

    async def _watch(self, popen: subprocess.Popen[bytes]) -> int:
        """Sets RUNNING when the process is ready, waits for its end, and returns its exit code."""
        exited = asyncio.create_task(_exit_code(popen))
        try:
            while not exited.done() and not await self.program.ready():
                await asyncio.wait({exited}, timeout=READY_POLL_SECONDS)
            if not exited.done():
                self._set(Status.RUNNING)
            return await exited
        finally:
            exited.cancel()

    def _forget_process(self) -> None:
        self._popen = None
        self.pid = None

    def _set(self, status: Status) -> None:
        self.status = status
        self._changed()


async def _exit_code(popen: subprocess.Popen[bytes]) -> int:
    """Waits for the process's end, and reaps it."""
    try:
        handle = os.pidfd_open(popen.pid)
    except (AttributeError, OSError):  # not Linux, or an old kernel
        while popen.poll() is None:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.1)
        return popen.returncode
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def on_exit() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(handle, on_exit)
    try:
        await ended
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    return popen.wait()


async def _end(popen: subprocess.Popen[bytes], program: Program) -> None:
    if popen.poll() is None:
        popen.send_signal(program.stop_signal)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_exit_code(popen), program.stop_seconds)
    if popen.poll() is None:
        popen.kill()
        await _exit_code(popen)
    # Children that it left in its session.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signal.SIGKILL)
