"""The shop's relay and consumer as processes that a test controls, and the count of their events and effects."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr
from sqlalchemy import text

from common.db.database import Database
from common.messaging import broker, topology
from common.messaging.cloudevents import Event
from common.messaging.outbox import record
from common.testing.plugin import eventually

from .shop import Settings, handlers

HERE = Path(__file__).parent
MIGRATIONS = HERE.parents[1] / "libs" / "common" / "tests" / "migrations"


class Counted(Event):
    type: ClassVar[str] = "shop.item.counted.v1"

    number: int


@dataclass(frozen=True)
class Count:
    events: int
    lost: int
    double: int
    disordered: int

    @property
    def faults(self) -> tuple[int, int, int]:
        return self.lost, self.double, self.disordered

    def __str__(self) -> str:
        return f"{self.events} events: lost {self.lost}, double effects {self.double}, out of order {self.disordered}"


class Backbone:
    """Records events of `aggregates` aggregates in turn; starts and kills the roles that deliver them."""

    def __init__(self, database: Database, amqp_url: str, log: Path, aggregates: int = 20) -> None:
        self.database = database
        self.amqp_url = amqp_url
        self.processes: list[asyncio.subprocess.Process] = []
        self._log = log
        self._versions = dict.fromkeys((f"item-{number}" for number in range(aggregates)), 0)

    @property
    def recorded(self) -> int:
        return sum(self._versions.values())

    async def start(self, role: str, *, amqp_url: str | None = None) -> asyncio.subprocess.Process:
        environment = os.environ | {
            "WAYBILL_DATABASE_URL": self.database.dsn,
            "WAYBILL_AMQP_URL": amqp_url or self.amqp_url,
            "WAYBILL_PUBLIC_URL": "http://gateway.invalid",
            "WAYBILL_AUTH_URL": "http://auth.invalid",
            "WAYBILL_SECRETS_DIR": "/nonexistent",
        }
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, HERE / "shop.py", role, "--port", "0"), env=environment, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    async def kill(self, process: asyncio.subprocess.Process) -> None:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        self.processes.remove(process)

    async def stop(self, process: asyncio.subprocess.Process) -> int:
        """Sends SIGTERM and returns the exit code. Raises `TimeoutError` after the 40 s that a process may take."""
        process.terminate()
        code = await asyncio.wait_for(process.wait(), 40)
        self.processes.remove(process)
        return code

    async def record(self, rounds: int = 1) -> None:
        """Records one more event of each aggregate, `rounds` times."""
        for _ in range(rounds):
            for subject in self._versions:
                version = self._versions[subject] + 1
                async with self.database.transaction() as session:
                    await record(session, Counted(number=version), subject=subject, version=version)
                self._versions[subject] = version

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Records events for the length of the block."""
        stop = asyncio.Event()

        async def record_until_stopped() -> None:
            while not stop.is_set():
                await self.record()

        task = asyncio.create_task(record_until_stopped())
        try:
            yield
        finally:
            stop.set()
            await task

    async def notes(self) -> Sequence[str]:
        async with self.database.transaction() as session:
            return list((await session.execute(text("SELECT note FROM effects ORDER BY position"))).scalars())

    async def until_attached(self, role: str, count: int) -> None:
        """Waits until `count` processes of that role have a session with the database."""
        of_role = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND datname = current_database()"
        )

        async def is_met() -> bool:
            async with self.database.transaction() as session:
                name = "shop-relay-share" if role == "relay" else f"shop-{role}"
                found = await session.execute(text(of_role), {"name": name})
            return int(found.scalar_one()) >= count

        await eventually(is_met, within=30)

    async def until_effects(self, at_least: int, *, within: float = 30) -> None:
        async def have_occurred() -> bool:
            return len(await self.notes()) >= at_least

        await eventually(have_occurred, within=within)

    async def until_more(self, count: int = 100, *, within: float = 30) -> None:
        """Waits for `count` more effects, which show that events are processed."""
        await self.until_effects(len(await self.notes()) + count, within=within)

    async def until_pending(self, count: int, *, within: float = 10) -> None:
        async def is_met() -> bool:
            return await self.pending() == count

        await eventually(is_met, within=within)

    async def until_pending_grows(self, by: int = 100) -> None:
        goal = await self.pending() + by

        async def is_met() -> bool:
            return await self.pending() >= goal

        await eventually(is_met)

    async def pending(self) -> int:
        async with self.database.transaction() as session:
            return int((await session.execute(text("SELECT count(*) FROM outbox"))).scalar_one())

    async def settle(self, *, within: float = 60) -> Count:
        """Records a last event of each aggregate, waits until all are processed, and returns the count.

        The last events are behind all repetitions. Every process that was not killed must be running, since an outage
        ends no process.
        """

        async def are_processed() -> bool:
            notes = set(await self.notes())
            return await self.pending() == 0 and all(f"{item}/{last}" in notes for item, last in self._versions.items())

        await self.record()
        await eventually(are_processed, within=within)
        assert [process.returncode for process in self.processes] == [None] * len(self.processes)
        return self._count(await self.notes())

    def _count(self, notes: Sequence[str]) -> Count:
        expected = {f"{item}/{n}" for item, last in self._versions.items() for n in range(1, last + 1)}
        times = Counter(notes)
        highest: dict[str, int] = {}
        disordered = 0
        for item, _, version in (note.partition("/") for note in notes):
            disordered += int(version) < highest.get(item, 0)
            highest[item] = max(highest.get(item, 0), int(version))
        unknown = times.keys() - expected
        double = sum(count - 1 for count in times.values()) + len(unknown)
        return Count(len(expected), len(expected - times.keys()), double, disordered)


@contextlib.asynccontextmanager
async def backbone_on(database_url: str, amqp_url: str, log: Path) -> AsyncIterator[Backbone]:
    settings = Settings(
        database_url=SecretStr(database_url),
        amqp_url=SecretStr(amqp_url),
        public_url="http://gateway.invalid",
        auth_url="http://auth.invalid",
    )
    database = Database(settings)
    backbone = Backbone(database, amqp_url, log)
    async with broker.connect(amqp_url, "test") as connection:
        # Events that are published before the queue is bound are not routed to it.
        channel = await connection.channel()
        await topology.declare_producer(channel, "shop")
        await topology.declare_consumer(connection, "shop", handlers.bindings)
    try:
        yield backbone
    finally:
        for process in list(backbone.processes):
            with contextlib.suppress(ProcessLookupError):  # one that has exited must not keep the others running
                await backbone.kill(process)
        await database.close()
