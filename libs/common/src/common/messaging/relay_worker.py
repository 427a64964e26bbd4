"""A worker of the relay: publishes the events of some partitions of the outbox, batch by batch.

A batch is one transaction: lock the partitions, read the oldest rows, publish them with confirms (one unconfirmed
message per aggregate, aggregates concurrently), move the confirmed ones to the log, commit. A worker that loses the
transaction loses the locks, so two can never both remove rows. After a crash at any point the rows are still in the
outbox and are published again with the same ids.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Final

import structlog
from aio_pika.abc import AbstractConnection
from prometheus_client import Counter

from common.messaging import broker, outbox_partitions
from common.messaging.confirmed_publish import ConfirmedPublish
from common.messaging.lower_bound import LowerBound
from common.messaging.publisher import Publisher, Unconfirmed, named
from common.messaging.unsendable import set_aside
from common.observability import history
from common.runtime.background import first_of

log = structlog.get_logger(__name__)

PUBLISHED: Final = Counter("waybill_relay_published_total", "Events confirmed by the broker and moved to the log.")

BATCH: Final = 500
_POLL: Final = 1.0
_CLOSING: Final = 10.0


class Worker:
    """Uses a connection to the database (asyncpg's) that nothing else uses meanwhile, and channels of its own."""

    def __init__(
        self,
        publisher: Publisher,
        database: Any,
        amqp: AbstractConnection,
        on_moved: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_moved` is called after each commit that moved events to the log."""
        self._publisher = publisher
        self._on_moved = on_moved
        self._database = database
        self._amqp = amqp
        self._channel: ConfirmedPublish
        self._woken = asyncio.Event()
        self._partitions: tuple[int, ...] = ()
        self._locked: tuple[int, ...] = ()
        self._bound = LowerBound()

    def wake(self) -> None:
        """Events may have been recorded."""
        self._woken.set()

    def assign(self, partitions: tuple[int, ...]) -> None:
        """From its next batch on the worker publishes these partitions."""
        if partitions != self._partitions:
            self._partitions = partitions
            self.wake()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`. Raises what broke the connection to the broker or the database."""
        await self.open()
        while not stop.is_set():
            self._woken.clear()
            try:
                if await self._batch():
                    continue
            except Unconfirmed:
                await broker.until_unblocked(self._channel.channel, stop)
                await self._renew_channel()
            await first_of(self._woken, stop, within=min([_POLL, *self._publisher.held().values()]))
            if self._channel.channel.is_closed:
                raise ConnectionError("connection lost")

    async def _renew_channel(self) -> None:
        """Other workers go on with theirs: an event type without confirms must not make them repeat their batches."""
        log.warning("no confirm in time, opening another channel")
        old = self._channel
        await self.open()
        with contextlib.suppress(*broker.BROKER_ERRORS):
            await asyncio.wait_for(old.channel.close(), _CLOSING)

    async def open(self) -> None:
        async with asyncio.timeout(_CLOSING):
            self._channel = ConfirmedPublish(await broker.raw_channel(self._amqp, confirms=True))

    async def _batch(self) -> bool:
        """Publishes and moves up to `BATCH` rows. Returns whether more may be waiting in partitions that it locked."""
        held = [*self._publisher.held()]
        confirmed: set[int] = set()
        failure: Exception | None = None
        async with self._database.transaction():
            if not await self._lock():
                return False
            after = self._bound.after(sweep=not held)
            rows = await outbox_partitions.oldest(self._database, self._locked, after, BATCH, held)
            if rows:
                ids, unsendable, failure = await self._publisher.publish(self._channel, rows)
                confirmed = set(ids)
                if unsendable:
                    await set_aside(self._database, unsendable)
                    self._bound = LowerBound()
            if confirmed:
                moved = [row for row in rows if row["id"] in confirmed]
                await outbox_partitions.move(self._database, self._locked, moved)
        PUBLISHED.inc(len(confirmed))
        if confirmed:
            self._on_moved()
        history.note("moved", (named(row) for row in rows if row["id"] in confirmed))
        if failure is not None:
            raise failure
        if not held:
            await self._raise_bound(rows, confirmed)
        return len(rows) == BATCH or len(confirmed) < len(rows)

    async def _lock(self) -> bool:
        if not self._partitions:
            return False
        locked = await outbox_partitions.lock(self._database, self._partitions)
        if locked and locked != self._locked:
            self._locked, self._bound = locked, LowerBound()
        return bool(locked)

    async def _raise_bound(self, rows: Sequence[Any], confirmed: set[int]) -> None:
        """Only past rows that are moved: events of held types are not even read, and stay."""
        ids = [row["id"] for row in rows]
        moved = list(takewhile(confirmed.__contains__, ids))
        if moved or not ids:
            await self._bound.moved(self._database, moved[-1] if moved else None)
