"""The process that owns a stack from `up` to `down`."""

import asyncio
import contextlib
import fcntl
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

import psutil

from waybill_dev.base import ram_disk
from waybill_dev.base.background import background
from waybill_dev.base.options import Options
from waybill_dev.base.state import State
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.services import programs
from waybill_dev.supervision import control, logfiles, orphans
from waybill_dev.supervision.leftovers import end_leftovers
from waybill_dev.supervision.stack import Stack
from waybill_dev.supervision.status_report import report

HOUSEKEEPING_SECONDS = 5.0


async def supervise(state: State, options: Options, *, ready: Callable[[], object]) -> None:
    """Runs the stack until SIGINT, SIGTERM or `down`. Calls `ready` once all of it is ready. Raises LocalError."""
    with _supervisor_lock(state):
        for name in end_leftovers(state):
            say(f"ended {name}, left running by a killed supervisor")
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        stack = Stack(state, options)
        stack.prepare()
        orphans.adopt()
        async with _controlled(stack, stop), background(_housekeeping(stack, stop)):
            try:
                if await _finished_before(stop, stack.boot()):
                    ready()
                    await stop.wait()
            finally:
                say("stopping")
                await stack.stop()
                orphans.end_all()
                (state.folder / "processes.json").unlink(missing_ok=True)
                ram_disk.discard(state)


async def _finished_before(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Runs `work`, and returns whether it finished before `stop` was set. Otherwise it is cancelled."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        await task
        return True
    task.cancel()
    await asyncio.wait({task})
    return False


@contextlib.asynccontextmanager
async def _controlled(stack: Stack, stop: asyncio.Event) -> AsyncIterator[None]:
    actions = Actions(stack, stop)
    server = await control.serve(
        stack.state,
        {
            "status": actions.status,
            "start": actions.start,
            "stop": actions.stop,
            "restart": actions.restart,
            "scale": actions.scale,
            "environment": actions.environment,
            "down": actions.down,
        },
    )
    try:
        yield
    finally:
        stack.state.supervisor_file.unlink(missing_ok=True)
        server.close()


class Actions:
    """The actions that commands may call. Arguments are as a person typed them."""

    def __init__(self, stack: Stack, stop: asyncio.Event) -> None:
        self._stack = stack
        self._stop = stop

    async def status(self) -> object:
        return report(self._stack)

    async def start(self, target: str) -> None:
        servers, members = self._stack.select(target)
        for process in servers:
            process.start()
        await asyncio.gather(*(process.until_running() for process in servers))
        if self._stack.fleet is not None:
            self._stack.fleet.start(members)
            await self._stack.fleet.until_serving(members)

    async def stop(self, target: str) -> None:
        servers, members = self._stack.select(target)
        if self._stack.fleet is not None:
            await self._stack.fleet.stop(members)
        await asyncio.gather(*(process.stop() for process in servers))

    async def restart(self, target: str) -> None:
        servers, members = self._stack.select(target)
        for process in servers:
            await process.stop()
            process.start()
            await process.until_running()
        if self._stack.fleet is not None:
            await self._stack.fleet.restart(members)

    async def scale(self, service: str, role: str, count: int) -> None:
        self._stack.select(f"{service}:{role}")
        if self._stack.fleet is None:
            raise LocalError("no services were started")
        await self._stack.fleet.scale(service, role, count)

    async def environment(self, service: str) -> dict[str, str]:
        """The environment of the service's processes."""
        if self._stack.fleet is None:
            raise LocalError("no services were started")
        return programs.environment(self._stack.state, self._stack.fleet.addresses, service)

    async def down(self) -> None:
        self._stop.set()


async def _housekeeping(stack: Stack, stop: asyncio.Event) -> None:
    zombies: set[int] = set()
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        logfiles.rotate(stack.state.logs)
        if stack.options.owner is not None and not _is_alive(stack.options.owner):
            say("stopping, because the process that owns this stack has ended")
            stop.set()
        zombies = orphans.reap(zombies)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def _supervisor_lock(state: State) -> Iterator[None]:
    """Holds the state folder's lock. The kernel releases it even if this process is killed."""
    with (state.folder / "supervisor.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError("another ./dev runs this stack (./dev status)") from None
        yield


def is_supervised(state: State) -> bool:
    """Whether a supervisor is starting, running or ending."""
    if not state.folder.exists():
        return False
    try:
        with _supervisor_lock(state):
            return False
    except LocalError:
        return True
