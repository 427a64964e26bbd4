"""An event loop on simulated time. A seed decides which process takes the next step.

A process has an event loop of its own in reality, so its steps keep their order here. Time passes only when no process
can take a step. A dead process never takes another one: nothing of it is cleaned up, as after `kill -9`.
"""

import asyncio
import heapq
from asyncio import Handle
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from itertools import count
from random import Random
from typing import Any, Final


class Process:
    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.ready: deque[Handle] = deque()
        self.frozen_until = 0.0
        self.is_dead = False
        self.is_role = False
        """Whether it is one of the product's, which may die."""
        self.dies_in = -1
        """Steps until its death; negative for a process that lives on."""
        self.restart: Callable[[], None] = lambda: None
        self.context: Final = copy_context()
        self.context.run(PROCESS.set, self)


PROCESS: ContextVar[Process] = ContextVar("process")
OUTSIDE: Final = Process("outside")
"""The network, the servers and whoever starts processes."""


class _Task(asyncio.Task[Any]):
    """Ordered by its creation in sets, which are ordered by addresses otherwise."""

    _numbers = count()

    def __init__(self, *args: Any, **options: Any) -> None:
        self._number = next(self._numbers)
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self._number


class SimulatedLoop(asyncio.BaseEventLoop):
    _ready: deque[Handle]

    def __init__(self, random: Random, on_death: Callable[[Process], None]) -> None:
        super().__init__()
        self._now = 0.0
        self._random = random
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = count()
        self._on_death = on_death
        self.processes: list[Process] = [OUTSIDE]
        self._dead: list[Process] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.steps = 0
        _Task._numbers = count()
        OUTSIDE.ready.clear()
        self.errors: list[BaseException] = []
        """Raised by callbacks. A failed task is its process's own matter."""
        self.set_exception_handler(
            lambda _, failure: self.errors.extend([failure["exception"]] * ("handle" in failure))
        )

    def time(self) -> float:
        return self._now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: object = None, context: Context | None = None, **_: Any
    ) -> asyncio.Task[Any]:
        self.tasks.append(_Task(coro, loop=self, name=name, context=context))
        return self.tasks[-1]

    def _run_once(self) -> None:
        """One step of one process."""
        while not (runnable := self._runnable()):
            when, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            self._ready.append(timer)
        process = self._random.choice(runnable) if len(runnable) > 1 else runnable[0]
        handle = process.ready.popleft()
        if not handle.cancelled():
            self.steps += 1
            handle._run()
        if process.dies_in >= 0:
            process.dies_in -= 1
            if process.dies_in < 0:
                self.kill(process)

    def kill(self, process: Process) -> None:
        process.is_dead = True
        self.processes.remove(process)
        self._dead.append(process)
        self._on_death(process)

    def _runnable(self) -> list[Process]:
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._context.get(PROCESS, OUTSIDE).ready.append(handle)  # type: ignore[attr-defined]
        return [each for each in self.processes if each.ready and each.frozen_until <= self._now]

    def dispose(self) -> None:
        """Cancels all that is left, also of dead processes: their coroutines must not outlive the loop."""
        self.processes += self._dead
        for process in self.processes:
            process.is_dead, process.frozen_until, process.dies_in = False, 0.0, -1
        while left := [task for task in self.tasks if not task.done()]:
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=100))
        self.close()
