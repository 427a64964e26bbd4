"""A producer, two relays, two consumers and an operator in a world of faults, all decided by one seed."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import count
from random import Random
from typing import Any, ClassVar, Final, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database, first_id_at
from common.messaging import parked
from common.messaging.broker import BROKER_ERRORS
from common.messaging.consumer import Consumer
from common.messaging.event_handlers import EventHandlers, Received
from common.messaging.relay import Relay
from common.observability import history
from common.runtime.health import Health
from waybill_dev.history.reading import Step
from waybill_dev.history.rules import History

from .broker import INBOUND, Broker
from .channel import Channel, Connection
from .faults import strike
from .loop import OUTSIDE, PROCESS, Process, SimulatedLoop
from .services import CHANGED, KIND, MAIL, NOTED, PARTITIONS, SHOPS, Changed
from .statements import EPOCH, now
from .store import Session, Store

TROUBLE: Final = (3.0, 6.0, 12.0)
"""Seconds in which faults happen. After them the world must come to rest."""
LONGEST: Final = 90.0
"""Seconds until it must have."""


class World:
    current: ClassVar["World"]

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - repeatable on purpose
        self.loop = SimulatedLoop(self.random, self._died)
        self.store = Store(self._delay, lambda: self.random.random() < 0.5)
        self.broker = Broker(self.random, self._delay)
        self.history = History()
        self.faults: list[str] = []
        self.steps: list[Step] = []
        self.listeners: list[tuple[Process, Callable[[], None]]] = []
        self.is_mended = False
        self._is_calm = False
        self._disagreement = self.random.choice((0, 0, 2, 4))
        self._producing = 0
        self._ids = count(1)
        self._numbers = count(1)
        self._tried: Counter[UUID] = Counter()
        World.current = self

    def run(self) -> list[str]:
        """Returns the faults that were found."""
        try:
            self.loop.run_until_complete(self.loop.create_task(self._main(), context=OUTSIDE.context))
        finally:
            notes, self.steps = self.steps, []
            self.loop.dispose()
            self.steps = notes
        return self.faults

    async def _main(self) -> None:
        self.store.tables["versions"][KIND, ""] = 0, EPOCH
        trouble = self.random.choice(TROUBLE)
        shop = self.random.choice(SHOPS)
        for number in (1, 2):
            self._start(f"relay {number}", lambda stop: Relay(shop, Health()).run(stop))
            self._start(f"consumer {number}", self._consume)
        self._start("operator", self._operate)
        for _ in range(self.random.randint(1, 4)):
            self._producing += 1
            self._spawn(Process("producer"), self._produce(self.random.randint(2, 5)))
        for _ in range(self.random.randint(0, 6)):
            self.loop.call_later(self.random.uniform(0, trouble), strike, self, context=OUTSIDE.context)
        await asyncio.sleep(trouble)
        self._is_calm, self.broker.refusals = True, 0.0
        for process in self.loop.processes:
            process.dies_in = -1
        resting = 0
        while resting < 3 and not self.faults:
            await asyncio.sleep(0.25)
            resting = resting + 1 if self._is_resting() else 0
            if self.loop.time() > LONGEST:
                self.faults.append("never came to rest")
        self.faults += [repr(error) for error in self.loop.errors]
        self._judge()

    def _is_resting(self) -> bool:
        tables = self.store.tables
        return not (self._producing or tables["outbox"] or tables["deferred"]) and self.broker.is_idle

    def _judge(self) -> None:
        tables = self.store.tables
        for step in self.steps:
            self.history.add(step)
        waiting = {row["event_id"] for row in tables["parked"].values() if row["resolved_at"] is None}
        done = {str(event) for event in tables["inbox"]} | {s.event for s in self.steps if s.name == "ignored"}
        logged = {str(row["event_id"]) for row in tables["log"].values()}
        self.history.end(
            logged, (str(r["event_id"]) for r in tables["outbox"].values()), {INBOUND: done}, {INBOUND: waiting}
        )
        self.faults += [f"{v.rule}: {v.event} {v.step}" for v in self.history.violations]
        effects = Counter(event for event, _ in tables["effects"].values())
        self.faults += [f"effect {times} times: {event}" for event, times in effects.items() if times > 1]
        self.faults += [f"effect missing: {event}" for event in tables["inbox"] if event not in effects]

    def _spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> None:
        self.loop.processes.append(process)
        self.loop.create_task(self._watched(process, work), context=process.context)

    async def _watched(self, process: Process, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a process of the product ends by no exception
            self.faults.append(f"{process.name} ended: {error!r}")

    def _start(self, name: str, role: Callable[[asyncio.Event], Coroutine[Any, Any, Any]]) -> None:
        process = Process(f"{name} #{next(self._numbers)}")
        process.is_role = True
        process.restart = partial(self._start, name, role)
        if not self._is_calm and self.random.random() < 0.5:
            process.dies_in = self.random.randint(1, 400)
        self._spawn(process, role(asyncio.Event()))

    def _died(self, process: Process) -> None:
        """Its connections end within moments, and another process starts in its place."""
        for session in [each for each in self.store.sessions if each.process is process]:
            self.loop.call_later(self._delay(), session.end, context=OUTSIDE.context)
        for connection in [each for each in self.broker.connections if each.process is process]:
            self.broker.later(self._delay(), partial(connection.cut, 0.0))
        self.listeners = [each for each in self.listeners if each[0] is not process]
        self.loop.call_later(self.random.uniform(0.05, 2), process.restart, context=OUTSIDE.context)

    def share(self) -> tuple[int, ...]:
        """The partitions that a relay believes to be its own. The relays may disagree for some time."""
        if not self._is_calm and self.loop.time() % 4 < self._disagreement:
            return PARTITIONS
        return PARTITIONS[:1] if PROCESS.get().name.startswith("relay 1") else PARTITIONS[1:]

    async def _consume(self, stop: asyncio.Event) -> None:
        handlers = EventHandlers(in_order=[KIND])
        handlers.on(CHANGED, Changed)(self._handle)
        await Consumer(MAIL, cast(Database, self.store), handlers, Health()).run(stop)

    async def _handle(self, session: AsyncSession, event: Received[Changed]) -> None:
        async def statement() -> None:
            cast(Session, session).write("effects", object(), (event.id, event.version))

        await cast(Session, session).run(statement)
        self._tried[event.id] += 1
        failures = event.data.failures
        if self._tried[event.id] <= failures or (failures < 0 and not self.is_mended):
            raise ValueError("a defect")

    async def _operate(self, _: asyncio.Event) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.1, 1.5))
            waiting = [k for k, row in self.store.tables["parked"].items() if row["resolved_at"] is None]
            if self._is_calm or not waiting:
                continue
            connection = Connection(self.broker)
            channel: Any = Channel(connection)
            try:
                async with self.store.transaction() as session:
                    await parked.replay(cast(AsyncSession, session), INBOUND, self.random.choice(waiting), channel)  # type: ignore[arg-type]
            except BROKER_ERRORS:
                continue
            finally:
                connection.cut(0.0)

    async def _produce(self, versions: int) -> None:
        """Changes of one aggregate, one after the other: the next begins after the commit."""
        await asyncio.sleep(self.random.uniform(0, 3))
        subject, partition = str(self._id()), self.random.choice(PARTITIONS)
        version = 1
        while version <= versions:
            row: Any = None
            try:
                async with self.store.transaction() as session:
                    session.writer = row_id = next(self._ids)
                    row = self._event(row_id, subject, partition, version)
                    history.note("recording", [(row["event_id"], subject, version)])
                    session.write("outbox", row_id, row)
                    await asyncio.sleep(self.random.choice((0.001, 0.01, self.random.uniform(0, 3))))
                    if self.random.random() < 0.1:
                        raise ConnectionError("rolled back")
            except OSError:
                await asyncio.sleep(0.1)
            if row and any(row["id"] in self.store.tables[table] for table in ("outbox", "log")):
                version += 1
                for process, wake in self.listeners:
                    if self.random.random() < 0.8:
                        self.loop.call_later(self._delay(), wake, context=process.context)
        self._producing -= 1

    def _event(self, row_id: int, subject: str, partition: int, version: int) -> dict[str, Any]:
        failures: Any = self.random.choice((0, 0, 0, 0, 0, 1, 2, -1, "unreadable", "unreadable"))
        return {
            "id": row_id,
            "event_id": self._id(),
            "type": NOTED if self.random.random() < 0.1 else CHANGED,
            "subject": subject,
            "version": version,
            "occurred_at": now(),
            "data": json.dumps({"failures": failures}),
            "traceparent": None,
            "partition": partition,
        }

    def _id(self) -> UUID:
        return UUID(int=first_id_at(now()).int | self.random.getrandbits(62))

    def _delay(self) -> float:
        """Seconds of one way through the network."""
        chance = 0.0 if self._is_calm else self.random.random()
        longest = 0.01 if chance < 0.9 else 0.5 if chance < 0.99 else 12
        return self.random.uniform(0.0005, longest)
