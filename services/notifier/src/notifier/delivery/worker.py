"""The deliverer: claims what is due on one channel, sends it, records what came of it.

Any number may run. A claim is a lease, taken in one short transaction (`FOR UPDATE SKIP LOCKED`) and renewed while the
sending goes on; what a killed deliverer held falls due again when its lease ends. Sending happens outside of any
transaction.

Nothing can be sent exactly once to who keeps no count of it: when we die between the other side's acceptance and our
record of it, it goes out again, with the same id. That window is as short as a transaction; a database that is away is
waited for.
"""

import asyncio
import contextlib
from collections.abc import Hashable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, Generic

import structlog
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy.exc import SQLAlchemyError

from common.db.database import Database, utc_now
from common.db.notify import listen
from common.errors import Unavailable
from common.observability.spans import span
from common.observability.trace import traced
from common.runtime.background import background, every, first_of
from notifier.delivery.errors import ChannelUnavailable, Deferred, NothingToSend, Refused
from notifier.delivery.outcomes import Outcome, jittered
from notifier.delivery.queue import C, Queue

log = structlog.get_logger(__name__)

OUTCOMES: Final = Counter(
    "waybill_deliveries_total", "Attempts to deliver by what became of them.", ["channel", "outcome"]
)
DELAY: Final = Histogram(
    "waybill_delivery_delay_seconds",
    "From a delivery's planning to its acceptance by the other side.",
    ["channel"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 3600),
)
PENDING: Final = Gauge(
    "waybill_deliveries_pending", "Deliveries that are neither settled nor waiting for a contact.", ["channel"]
)
OLDEST: Final = Gauge(
    "waybill_deliveries_oldest_age_seconds",
    "Age of the oldest of them; for webhooks, whose receivers may be away for days, how late the latest is.",
    ["channel"],
)

_POLL: Final = 1.0
_MEASURE_EVERY: Final = 15.0
_DRAIN: Final = 20.0
"""Seconds that a stop leaves to what is being sent."""
_LINK_DELAY: Final = 5.0
"""Seconds until users, who was away, is asked for a link again."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0


class Deliverer(Generic[C]):
    """Sends a queue's deliveries side by side; holds each by a lease that it renews."""

    def __init__(self, database: Database, queue: Queue[C], *, lease: timedelta) -> None:
        self._database = database
        self._queue = queue
        self._lease = lease
        self._sending: dict[Hashable, C] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._outcomes: dict[Hashable, Outcome[C]] = {}
        self._writing = asyncio.Lock()
        """A renewal that overtook the record of a postponement would undo it."""
        self._wake = asyncio.Event()
        self._pause = 0.0
        self._away_until = 0.0
        for outcome in ("sent", "postponed", "failed", "cancelled"):
            OUTCOMES.labels(queue.channel, outcome)  # zero from the start, so that the first case counts

    async def run(self, stop: asyncio.Event) -> None:
        channel = self._queue.channel
        listening = partial(
            listen,
            self._queue.notify_channel,
            self._wake.set,
            dsn=self._database.dsn,
            name=f"notifier-deliver-{channel}-listen",
        )
        async with background(
            listening,
            partial(every, self._lease.total_seconds() / 3, self._renew),
            partial(every, _POLL, self._tend),
            partial(every, _MEASURE_EVERY, self._measure),
        ):
            try:
                while not stop.is_set():
                    self._wake.clear()
                    await self._turn(self._free_slots())
                    await first_of(self._wake, stop, within=_POLL)
            finally:
                await self._drain()

    async def _turn(self, free_slots: int) -> None:
        """One transaction: records what came of deliveries and claims new ones, which are then begun.

        An outcome is kept until it is recorded, however long that takes: to forget it would be to send it twice.
        """
        async with self._writing:
            for claim in await self._record_and_claim(free_slots):
                # It may be held already, where the database was away for longer than the lease.
                if claim.key not in self._sending and claim.key not in self._outcomes:
                    self._sending[claim.key] = claim
                    task = asyncio.create_task(self._deliver(claim))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _record_and_claim(self, free_slots: int) -> Sequence[C]:
        recorded = dict(self._outcomes)
        if not recorded and free_slots <= 0:
            return ()
        claimed: Sequence[C] = ()
        try:
            async with self._database.transaction() as session:
                if recorded:
                    await self._queue.record(session, recorded.values())
                if free_slots > 0:
                    claimed = await self._queue.claim(
                        session, limit=free_slots, lease=self._lease, sending=self._sending.values()
                    )
        except (SQLAlchemyError, OSError) as error:
            log.warning("database away, will try again", error=type(error).__name__, outcomes=len(recorded))
            return ()
        for key in recorded:
            del self._outcomes[key]
        return claimed

    def _free_slots(self) -> int:
        if asyncio.get_running_loop().time() < self._away_until:
            return 0
        return (1 if self._pause else self._queue.slots) - len(self._sending)

    async def _deliver(self, claim: C) -> None:
        ids = traced(request_id=str(claim.event_id), traceparent=claim.traceparent)
        facts: dict[str, str | int] = {"waybill.kind": self._queue.kind(claim), "waybill.attempt": claim.attempts}
        with ids, span(f"deliver {self._queue.channel}", "client", facts) as attempt:
            outcome = await self._attempt(claim)
            became = "postponed" if outcome.state == "pending" else outcome.state
            attempt.note({"waybill.outcome": became})
            if became in {"postponed", "failed"}:
                attempt.fail(became)
            OUTCOMES.labels(self._queue.channel, became).inc()
            line = log.warning if outcome.state == "failed" else log.info
            line("delivery attempted", state=outcome.state, cause=outcome.cause, **self._ids(claim))
        self._outcomes[claim.key] = outcome
        del self._sending[claim.key]
        self._wake.set()

    async def _attempt(self, claim: C) -> Outcome[C]:  # noqa: PLR0911 - one for each way it can end
        try:
            await self._queue.send(claim)
        except NothingToSend as error:
            return Outcome(claim, "cancelled", str(error))
        except Refused as error:
            self._pause = 0
            return Outcome(claim, "failed", str(error))
        except Deferred as error:
            self._pause = 0
            return self._deferred(claim, str(error))
        except ChannelUnavailable as error:
            self._step_back(error)
            return Outcome(claim, "pending", str(error), counts=False)
        except Unavailable as error:
            return Outcome(claim, "pending", error.detail, retry_in=_LINK_DELAY, counts=False)
        except Exception as error:
            log.exception("a delivery failed unexpectedly", **self._ids(claim))
            return self._deferred(claim, type(error).__name__)
        self._pause = 0
        DELAY.labels(self._queue.channel).observe(max(0.0, (utc_now() - claim.created_at).total_seconds()))
        return Outcome(claim, "sent")

    def _deferred(self, claim: C, cause: str) -> Outcome[C]:
        """Later, and later each time; after some days never."""
        delay = self._queue.delay(claim.attempts)
        if delay is None:
            return Outcome(claim, "failed", f"given up after {claim.attempts} attempts: {cause}")
        return Outcome(claim, "pending", cause, jittered(delay))

    def _step_back(self, error: ChannelUnavailable) -> None:
        """Nobody claims for a while, then one at a time until the other side is there again."""
        now = asyncio.get_running_loop().time()
        if now >= self._away_until:
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._away_until = now + jittered(self._pause)
            log.warning(
                "nobody takes it, will try again", cause=str(error), channel=self._queue.channel, pause=self._pause
            )

    async def _drain(self) -> None:
        """Finishes what is being sent, and records it, as far as time allows."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN):
                while self._sending or self._outcomes:
                    self._wake.clear()
                    await self._turn(0)
                    if self._sending or self._outcomes:
                        await first_of(self._wake, within=_POLL)
        if self._sending or self._outcomes:
            log.warning("stopped in between", sending=len(self._sending), unrecorded=len(self._outcomes))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _renew(self) -> None:
        async with self._writing:
            if held := [*self._sending.values(), *(outcome.claim for outcome in self._outcomes.values())]:
                async with self._database.transaction() as session:
                    await self._queue.renew(session, held, lease=self._lease)

    async def _tend(self) -> None:
        async with self._database.transaction() as session:
            fell_due = await self._queue.tend(session)
        if fell_due:
            self._wake.set()

    async def _measure(self) -> None:
        await self._queue.rest()
        async with self._database.transaction() as session:
            pending, age = await self._queue.backlog(session)
        PENDING.labels(self._queue.channel).set(pending)
        OLDEST.labels(self._queue.channel).set(age)

    def _ids(self, claim: C) -> dict[str, Any]:
        return {"channel": self._queue.channel, **self._queue.ids(claim)}
