"""A discrete-event simulation of queues: nodes with cores, and processes that work in batches, one after the other.

Events happen in the order of their times (a heap). https://en.wikipedia.org/wiki/Discrete-event_simulation.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")

SLICE: Final = 0.002
"""Seconds for which a core is kept: longer work lets others in between, as an operating system does."""

Step = Sequence[tuple["Node", float]]
"""Works, by node and seconds of one core, that begin together. A step ends with its last work."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._sequence = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._sequence), event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()


class Node:
    """Cores that serve work in the order of its arrival, a slice at a time."""

    def __init__(self, clock: Clock, cores: int) -> None:
        self._clock = clock
        self._free = self.cores = cores
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self.busy = 0.0
        """Seconds of all cores together."""

    def work(self, seconds: float, then: Callable[[], None]) -> None:
        if self._free:
            self._free -= 1
            self._serve(seconds, then)
        else:
            self._waiting.append((seconds, then))

    def _serve(self, seconds: float, then: Callable[[], None]) -> None:
        part = min(seconds, SLICE)
        self.busy += part
        self._clock.after(part, lambda: self._served(seconds - part, then))

    def _served(self, left: float, then: Callable[[], None]) -> None:
        if left > 0:
            self._waiting.append((left, then))
        if self._waiting:
            self._serve(*self._waiting.popleft())
        else:
            self._free += 1
        if left <= 0:
            then()


class Process(Generic[T]):
    """Takes up to `most` waiting items, does the steps of that batch, and passes it on; then the next.

    `steps` gets the number of items, and whether the process was idle before.
    """

    def __init__(
        self, most: int, steps: Callable[[int, bool], Sequence[Step]], then: Callable[[list[T]], None]
    ) -> None:
        self._most = most
        self._steps = steps
        self._then = then
        self._waiting: deque[T] = deque()
        self._is_busy = False

    def add(self, item: T) -> None:
        self._waiting.append(item)
        if not self._is_busy:
            self._next(was_idle=True)

    def _next(self, *, was_idle: bool) -> None:
        self._is_busy = bool(self._waiting)
        if self._is_busy:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            run_steps(deque(self._steps(len(batch), was_idle)), lambda: self._finish(batch))

    def _finish(self, batch: list[T]) -> None:
        self._then(batch)
        self._next(was_idle=False)


def run_steps(steps: deque[Step], then: Callable[[], None]) -> None:
    if not steps:
        then()
        return
    works = steps.popleft()
    left = len(works)

    def ended() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            run_steps(steps, then)

    for node, seconds in works:
        node.work(seconds, ended)
