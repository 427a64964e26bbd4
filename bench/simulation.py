"""Orders through API, database, relay, broker and consumer, as a queueing model fed by a run's measured times.

A request takes an API process, then its process's next group of writes takes the database. Its event takes a relay with
up to 500 others, the broker, and a consumer with up to 100 others. Arrivals are random (Poisson), and so are times
(gamma, with half their mean as standard deviation).
"""

import math
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from bench.queueing import Clock, Node, Process, Step
from bench.table import percentile
from bench.times import Times

ROLES: Final = ("api", "relays", "queues", "database", "effects", "broker")
GROUP, RELAY_BATCH, CONSUMER_BATCH = 32, 500, 100
CHANGES: Final = 3
"""Of an order after it was placed: confirmed, shipped, delivered."""
FULL: Final = 0.7
"""How busy a process or a core may be."""
WAITS: Final = 2
"""Of an event, for more than processors: the relay for the broker's confirm, the consumer for its commit."""
WARM_UP: Final = 0.25
"""The part of the simulated time whose orders are not measured."""


@dataclass(frozen=True)
class Deployment:
    """Processes of each role, and cores of each server. `shared` is the cores of one machine that has them all, and the
    clients as well.
    """

    api: int
    relays: int
    queues: int
    database: int = 1
    effects: int = 1
    broker: int = 1
    shared: int | None = None

    @property
    def cores(self) -> int:
        return self.shared or sum(getattr(self, role) for role in ROLES)

    def grown(self, busy: Mapping[str, float]) -> "Deployment":
        """With as much more of each role as its cores are busier than `FULL`."""
        sizes = {role: getattr(self, role) for role in ROLES}
        return replace(self, **{role: max(size, math.ceil(size * busy[role] / FULL)) for role, size in sizes.items()})


@dataclass(frozen=True)
class Outcome:
    """Events a second, seconds from commit to notification, and how busy each server's cores were.

    `request_p99` is from the request's arrival to the notification.
    """

    rate: float
    p50: float
    p99: float
    request_p99: float
    busy: dict[str, float]


@dataclass(slots=True)
class Request:
    arrived: float
    answered: Callable[[], None]
    committed: float = 0.0


class System:
    def __init__(self, times: Times, deployment: Deployment, *, changes: int, floor: float, seed: int) -> None:
        self.clock = Clock()
        self.random = random.Random(seed)
        self.notified: list[tuple[float, Request]] = []
        """Each with the time of its notification's commit."""
        self._times, self._awake, self._floor = times, times.awake(), floor
        machine = Node(self.clock, deployment.shared) if deployment.shared else None
        self.nodes = {name: machine or Node(self.clock, getattr(deployment, name)) for name in ROLES}
        self._elsewhere = Node(self.clock, sys.maxsize)
        # Orders and changes are mixed, so that each request has their mean time.
        self._request = (times.api.event + changes * times.api_change) / (1 + changes)
        self._write = (times.write.event + changes * times.write_change) / (1 + changes)
        self._consumers = [Process(CONSUMER_BATCH, self._consume, self._notified) for _ in range(deployment.queues)]
        self._relays = [Process(RELAY_BATCH, self._relay, self._relayed) for _ in range(deployment.relays)]
        writers = [Process(GROUP, self._commit, self._committed) for _ in range(deployment.api)]
        self._apis = [
            Process(1, self._handle, lambda batch, writer=writer: writer.add(batch[0]))  # type: ignore[misc]
            for writer in writers
        ]

    def request(self, answered: Callable[[], None]) -> None:
        self.random.choice(self._apis).add(Request(self.clock.now, answered))

    def client(self, then: Callable[[], None]) -> None:
        self.nodes["api"].work(self._vary(self._times.client), then)

    def _vary(self, mean: float) -> float:
        return self.random.gammavariate(4, mean / 4) if mean > 0 else 0.0

    def _step(self, *works: tuple[str, float]) -> Step:
        return [(self.nodes[name], self._vary(seconds)) for name, seconds in works]

    def _handle(self, _: int, _was_idle: bool) -> list[Step]:
        return [self._step(("api", self._request))]

    def _of(self, was_idle: bool) -> Times:
        return self._times if was_idle else self._awake

    def _commit(self, events: int, was_idle: bool) -> list[Step]:
        times = self._of(was_idle)
        write = times.write.batch + self._write * events
        return [self._step(("api", times.api.batch)), self._step(("database", write))]

    def _committed(self, batch: list[Request]) -> None:
        for request in batch:
            request.committed = self.clock.now
            self.random.choice(self._relays).add(request)
            request.answered()

    def _relay(self, events: int, was_idle: bool) -> list[Step]:
        times = self._of(was_idle)
        read = move = self._step(("database", times.move.of(events) / 2))
        publish = self._step(("relays", times.relay.of(events)), ("broker", times.publish.of(events)))
        return [read, publish, self._wait(), move]

    def _wait(self) -> Step:
        """For the confirm or the commit, which keep a batch from being followed by the next, and no processor busy."""
        return [(self._elsewhere, self._vary(self._floor / WAITS))]

    def _relayed(self, batch: list[Request]) -> None:
        for request in batch:
            self.random.choice(self._consumers).add(request)

    def _consume(self, events: int, was_idle: bool) -> list[Step]:
        times = self._of(was_idle)
        names = (("broker", times.deliver), ("queues", times.consumer), ("effects", times.effect))
        return [*(self._step((name, part.of(events))) for name, part in names), self._wait()]

    def _notified(self, batch: list[Request]) -> None:
        self.notified += [(self.clock.now, request) for request in batch]

    def outcome(self, since: float) -> Outcome:
        """Of the notifications since then."""
        notified = [(at, request) for at, request in self.notified if at >= since]
        lags = [at - request.committed for at, request in notified] or [math.inf]
        waits = [at - request.arrived for at, request in notified] or [math.inf]
        busy = {name: node.busy / node.cores / self.clock.now for name, node in self.nodes.items()}
        rate = len(notified) / (self.clock.now - since)
        return Outcome(rate, percentile(lags, 50), percentile(lags, 99), percentile(waits, 99), busy)


def at_rate(
    times: Times,
    deployment: Deployment,
    requests: float,
    *,
    seconds: float,
    changes: int = 0,
    floor: float = 0.0,
    seed: int = 1,
) -> Outcome:
    """`requests` a second arrive, whether or not earlier ones are answered."""
    system = System(times, deployment, changes=changes, floor=floor, seed=seed)

    def arrive() -> None:
        if deployment.shared:
            system.client(partial(system.request, _ignore))
        else:
            system.request(_ignore)
        system.clock.after(system.random.expovariate(requests), arrive)

    arrive()
    system.clock.run(seconds)
    return system.outcome(seconds * WARM_UP)


def saturated(
    times: Times, deployment: Deployment, connections: int, orders: int, *, floor: float = 0.0, seed: int = 1
) -> Outcome:
    """Each connection sends its next order when the one before is answered; until all are notified."""
    system = System(times, deployment, changes=0, floor=floor, seed=seed)
    left = orders

    def send() -> None:
        nonlocal left
        if left > 0:
            left -= 1
            system.client(partial(system.request, send))

    for _ in range(connections):
        send()
    system.clock.run(math.inf)
    return system.outcome(0.0)


def floor_of(times: Times, deployment: Deployment) -> float:
    """Seconds that an order waits for more than processors, such as disks, networks and wake-ups: by how much an order
    that is alone takes longer than in the model.
    """
    return max(0.0, times.lag - at_rate(times, deployment, 20, seconds=20).p50)


def _ignore() -> None:
    pass


def loaded(times: Times, deployment: Deployment, orders: float, *, seconds: float, floor: float) -> Outcome:
    """`orders` a second with all their changes."""
    requests = orders * (1 + CHANGES)
    return at_rate(times, deployment, requests, seconds=seconds, changes=CHANGES, floor=floor)


def plan(times: Times, orders: float, *, seconds: float, floor: float) -> tuple[Deployment, Outcome]:
    """What `orders` a second need so that nothing is busier than `FULL`, and how it does then.

    Begins with the times of full batches, and grows what is too busy: batches are smaller where there are many
    processes. A process that is serial is limited by all that it waits for, not by its own processor time alone.
    """
    events, wait = orders * (1 + CHANGES), floor / WAITS
    publish = max(times.relay.of(RELAY_BATCH), times.publish.of(RELAY_BATCH))
    relay = (times.move.of(RELAY_BATCH) + publish + wait) / RELAY_BATCH
    consume = sum(part.of(CONSUMER_BATCH) for part in (times.deliver, times.consumer, times.effect))
    queue = (consume + wait) / CONSUMER_BATCH
    need = {
        "api": orders * (times.api.event + CHANGES * times.api_change),
        "relays": events * relay,
        "queues": events * queue,
        "database": orders * (times.write.event + CHANGES * times.write_change) + events * times.move.event,
        "effects": events * times.effect.event,
        "broker": events * (times.publish.event + times.deliver.event),
    }
    deployment = Deployment(**{role: max(1, math.ceil(seconds / FULL)) for role, seconds in need.items()})
    while True:
        outcome = loaded(times, deployment, orders, seconds=seconds, floor=floor)
        grown = deployment.grown(outcome.busy)
        if grown == deployment:
            return deployment, outcome
        deployment = grown


def on_this_machine(cores: int) -> Deployment:
    """The local stack: one process of each role."""
    return replace(Deployment(1, 1, 1), shared=cores)
