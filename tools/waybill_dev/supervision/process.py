"""One supervised process: started, watched, started again when it dies, stopped when asked."""

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

# Each question costs the process that it is put to, while it has enough to do with starting.
READY_POLL_SECONDS = 0.2
BACKOFF_SECONDS = (0.2, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
BOOT_SECONDS = 120.0
HOPELESS_DEATHS = 4  # in a row, while somebody waits for it to become ready
STEADY_SECONDS = 30.0  # having lived so long, its earlier deaths are forgotten


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
        """Asks it to end, and after `stop_seconds` ends it. Returns once it is gone."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait({task})
        if self._popen is not None:
            await _end(self._popen, self.program)
        self._gone()
        self._set(Status.STOPPED)

    async def until_running(self) -> None:
        """Returns once it has become ready. Raises LocalError when it keeps dying or doesn't get there in time."""
        deadline = time.monotonic() + BOOT_SECONDS
        while self.status is not Status.RUNNING:
            if self.deaths_in_a_row >= HOPELESS_DEATHS:
                raise LocalError(f"{self.program.name} keeps dying: {self._last_words()}", log=self.program.log)
            if self.status is Status.STOPPED or time.monotonic() > deadline:
                raise LocalError(f"{self.program.name} did not become ready", log=self.program.log)
            await asyncio.sleep(READY_POLL_SECONDS / 2)

    def _last_words(self) -> str:
        lines = self.program.log.read_text(errors="replace").splitlines()
        said = next((line.strip() for line in reversed(lines) if line.strip()), "nothing in its log")
        return f"exit code {self.last_exit}, {said[:300]}"

    async def _keep_running(self) -> None:
        while True:
            began = time.monotonic()
            self._popen = spawn(self.program)
            self.pid = self._popen.pid
            self._set(Status.STARTING)
            self.last_exit = await self._watch(self._popen)
            self._gone()
            if time.monotonic() - began > STEADY_SECONDS:
                self.deaths_in_a_row = 0
            delay = BACKOFF_SECONDS[min(self.deaths_in_a_row, len(BACKOFF_SECONDS) - 1)]
            self.deaths_in_a_row += 1
            self.restarts += 1
            self._set(Status.BACKOFF)
            await asyncio.sleep(delay)

    async def _watch(self, popen: subprocess.Popen[bytes]) -> int:
        """Waits for the process's end, telling on the way when it has become ready."""
        exited = asyncio.create_task(_exit_code(popen))
        try:
            while not exited.done() and not await self.program.ready():
                await asyncio.wait({exited}, timeout=READY_POLL_SECONDS)
            if not exited.done():
                self._set(Status.RUNNING)
            return await exited
        finally:
            exited.cancel()

    def _gone(self) -> None:
        self._popen = None
        self.pid = None

    def _set(self, status: Status) -> None:
        self.status = status
        self._changed()


async def _exit_code(popen: subprocess.Popen[bytes]) -> int:
    """Reaps the process as soon as it ends."""
    try:
        handle = os.pidfd_open(popen.pid)
    except (AttributeError, OSError):  # not Linux, or an old kernel
        while popen.poll() is None:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.1)
        return popen.returncode
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def tell() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(handle, tell)
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
    # What it may have left in its session.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signal.SIGKILL)
