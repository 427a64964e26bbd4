"""A shop's relays and consumers, struck as a seed plans while events are recorded, and the history of what they did."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import asyncpg

from common.db.database import Database, new_id
from common.messaging import broker, topology
from common.messaging.cloudevents import Event
from common.messaging.outbox import record
from common.observability import history
from common.testing.plugin import eventually
from waybill_dev.chaos.plan import plan
from waybill_dev.history.reading import read
from waybill_dev.history.rules import History

from .ordered_shop import Settings, handlers

HERE = Path(__file__).parent
QUEUE = "shop.inbound"
WRITERS = 4
AGGREGATES = 60
"""Of each writer. Each of its transactions records one event of every third of them."""
TROUBLES = {(0, 2): "handler", (0, 3): "handler", **{(place, 3): "data" for place in range(1, 6)}}
"""By an aggregate's place among its writer's, and a version."""
STALLED = 40.0
"""Seconds without a change after which nothing more is expected. Longer than a deferred event waits."""


class Counted(Event):
    type: ClassVar[str] = "shop.item.counted.v1"

    trouble: str


@dataclass(frozen=True)
class Shape:
    """`partitions` is the relay's setting of that name, `queues` the consumer's."""

    relays: int
    partitions: int
    consumers: int
    queues: int


@dataclass
class StruckBackbone:
    """`record` runs until `total` events are recorded, and `settle` until all of them are at rest."""

    database: Database
    environment: dict[str, str]
    log: Path
    names: list[str]
    processes: dict[str, Process] = field(default_factory=dict)
    recorded: int = 0
    strikes: int = 0

    async def record(self, total: int, *, seed: int, every: int) -> None:
        await asyncio.gather(*(self.start(name) for name in self.names))
        await eventually(self._keeps_order, within=120)  # an aggregate older than that is taken at any version
        async with asyncio.TaskGroup() as group:
            striking = group.create_task(self._strike(seed, every))
            async with asyncio.TaskGroup() as writers:
                for _ in range(WRITERS):
                    writers.create_task(self._write(total))
            striking.cancel()
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)

    async def _keeps_order(self) -> bool:
        return bool(await self._query("SELECT 1 FROM aggregate_versions WHERE subject = ''"))

    async def start(self, name: str) -> None:
        words = (sys.executable, HERE / "ordered_shop.py", name.partition("-")[0], "--port", "0")
        with self.log.open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *words, env=self.environment, stdout=log, stderr=log
            )

    async def command(self, *words: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, HERE / "ordered_shop.py", *words, env=self.environment, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0

    async def _write(self, total: int) -> None:
        subjects = [str(new_id()) for _ in range(AGGREGATES)]
        versions = dict.fromkeys(subjects, 0)
        turn = 0
        while self.recorded < total:
            turn += 1
            async with self.database.transaction() as session:
                for subject in subjects[turn % 3 :: 3]:
                    versions[subject] += 1
                    trouble = TROUBLES.get((subjects.index(subject), versions[subject]), "")
                    await record(session, Counted(trouble=trouble), subject=subject, version=versions[subject])
                    self.recorded += 1

    async def _strike(self, seed: int, every: int) -> None:
        due = 0
        for strike in plan(seed, self.names, every):
            due += strike.after
            await self._until_recorded(due)
            process = self.processes[strike.name]
            if strike.how == "freeze":
                process.send_signal(signal.SIGSTOP)
                await self._until_recorded(self.recorded + every)
                process.send_signal(signal.SIGCONT)
            else:
                process.send_signal(signal.SIGKILL if strike.how == "kill" else signal.SIGTERM)
                await process.wait()
                await self.start(strike.name)
            self.strikes += 1

    async def _until_recorded(self, count: int) -> None:
        async def are() -> bool:
            return self.recorded >= count

        await eventually(are, within=600)

    async def repair(self) -> None:
        """Replays what is parked while its cause lasts, and again when it is repaired."""
        await self.settle()
        await self.command("parked", "replay", "--all")
        await self.settle()
        Path(self.environment["SHOP_REPAIRED"]).touch()  # noqa: ASYNC240 - a moment
        await self.command("parked", "replay", "--all")
        await self.settle()

    async def settle(self) -> None:
        """Waits until all events are processed or parked, or nothing changes any more."""
        last, changed = None, time.monotonic()

        async def at_rest() -> bool:
            nonlocal last, changed
            (found,) = await self._query(_STATE)
            if found != last:
                last, changed = found, time.monotonic()
            settled = found["waiting"] == 0 and found["processed"] + found["parked"] == self.recorded
            return settled or time.monotonic() - changed > STALLED

        await eventually(at_rest, within=600)

    async def checked(self, folder: Path) -> History:
        checked = History()
        for step in read(folder):
            checked.add(step)
        logged, waiting, inbox, parked = [
            {row["id"] for row in await self._query(query)} for query in (_LOGGED, _WAITING, _PROCESSED, _PARKED)
        ]
        checked.end(logged, waiting, {QUEUE: inbox}, {QUEUE: parked})
        return checked

    async def _query(self, query: str, *arguments: str) -> Iterable[Any]:
        connection = await asyncpg.connect(self.database.dsn)
        try:
            rows: list[Any] = await connection.fetch(query, *arguments)
            return rows
        finally:
            await connection.close()


_STATE = """
    SELECT (SELECT count(*) FROM outbox) AS waiting, (SELECT count(*) FROM inbox) AS processed,
        (SELECT count(*) FROM parked_messages WHERE resolved_at IS NULL) AS parked,
        (SELECT count(*) FROM deferred_messages) AS deferred"""
_LOGGED = "SELECT event_id::text AS id FROM event_log"
_WAITING = "SELECT event_id::text AS id FROM outbox"
_PROCESSED = "SELECT event_id::text AS id FROM inbox"
_PARKED = "SELECT event_id AS id FROM parked_messages WHERE resolved_at IS NULL"


@contextlib.asynccontextmanager
async def struck_backbone(
    shape: Shape, database_url: str, amqp_url: str, folder: Path
) -> AsyncIterator[StruckBackbone]:
    settings = {
        "WAYBILL_DATABASE_URL": database_url,
        "WAYBILL_AMQP_URL": amqp_url,
        "WAYBILL_PUBLIC_URL": "http://gateway.invalid",
        "WAYBILL_AUTH_URL": "http://auth.invalid",
        "WAYBILL_SECRETS_DIR": "/nonexistent",
        "WAYBILL_RETRY_DELAYS": "0.2,0.4,10",
        "WAYBILL_RELAY_PARTITIONS": str(shape.partitions),
        "WAYBILL_QUEUE_PARTITIONS": str(shape.queues),
        "WAYBILL_HISTORY": str(folder / "history"),
    }
    environment = {**os.environ, **settings, "SHOP_REPAIRED": str(folder / "repaired")}
    names = [f"relay-{n}" for n in range(shape.relays)] + [f"consume-{n}" for n in range(shape.consumers)]
    own = Settings.model_validate({name.removeprefix("WAYBILL_").lower(): value for name, value in settings.items()})
    history.begin(own.history, "writer")
    async with broker.connect(amqp_url, "test") as connection:
        channel = await connection.channel()
        await topology.declare_producer(channel, "shop")
        await topology.declare_consumer(connection, "shop", handlers.bindings)
    try:
        async with Database(own) as database:
            backbone = StruckBackbone(database, environment, folder / "shop.log", names)
            try:
                yield backbone
            finally:
                for process in backbone.processes.values():
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
    finally:
        history.end()
