"""The deliverer: claims due deliveries of one channel, sends them and records the outcomes.

Any number may run. A claim is a lease: made in one short transaction (`FOR UPDATE SKIP LOCKED`) and renewed while the
delivery is being sent. What a killed deliverer held becomes due again when its lease ends. No transaction is open while
a delivery is being sent.

Exactly-once delivery is impossible when the receiver does not deduplicate: if the deliverer dies after the receiver
accepted a message and before that is recorded, the message is sent again, with the same id. That window is one short
transaction, unless the database is unavailable: then outcomes stay in memory until they can be recorded.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Hashable, Sequence
from dataclasses import replace
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
from notifier.delivery.errors import Answer, ChannelUnavailable, Deferred, NothingToSend, Refused
from notifier.delivery.queue import C, Outcome, Queue

log = structlog.get_logger(__name__)

OUTCOMES: Final = Counter("waybill_deliveries_total", "Delivery attempts by outcome.", ["channel", "outcome"])
DELAY: Final = Histogram(
    "waybill_delivery_delay_seconds",
    "Seconds from the planning of a delivery to its acceptance by the receiver.",
    ["channel"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 3600),
)
PENDING: Final = Gauge(
    "waybill_deliveries_pending", "Deliveries that are neither settled nor waiting for a contact.", ["channel"]
)
OLDEST: Final = Gauge(
    "waybill_deliveries_oldest_age_seconds",
    "Age of the oldest pending mail; time since the most overdue webhook was due, as receivers may be down for days.",
    ["channel"],
)
RESTING: Final = Gauge(
    "waybill_delivery_channel_resting",
    "1 while nothing can be sent on the channel, because it is unavailable or refuses us.",
    ["channel"],
)

_POLL: Final = 1.0
_MEASURE_EVERY: Final = 15.0
_DRAIN: Final = 20.0
"""Seconds that a stopping deliverer gives to deliveries that are being sent."""
_LINK_DELAY: Final = 5.0
"""Seconds until the next attempt when the users service, which issues one-time links, is unavailable."""
_FIRST_BACKOFF: Final = 0.5
_MAX_BACKOFF: Final = 5.0


class Deliverer(Generic[C]):
    """Sends the deliveries of a queue concurrently and renews the lease of each."""

    def __init__(self, database: Database, queue: Queue[C], *, lease: timedelta) -> None:
        self._database = database
        self._queue = queue
        self._lease = lease
        self._sending: dict[Hashable, C] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._outcomes: dict[Hashable, Outcome[C]] = {}
        self._writing = asyncio.Lock()
        """Serializes writes: a renewal that overtook the record of a postponement would undo it."""
        self._wake = asyncio.Event()
        self._backoff = 0.0
        self._unavailable_until = 0.0
        RESTING.labels(queue.channel).set(0)
        for outcome in ("sent", "postponed", "failed", "cancelled"):
            OUTCOMES.labels(queue.channel, outcome)  # zero from the start, so that rate() sees the first one

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
            partial(every, _POLL, self._release_waiting),
            partial(every, _MEASURE_EVERY, self._measure),
        ):
            try:
                while not stop.is_set():
                    self._wake.clear()
                    await self._run_cycle(self._free_slots())
                    await first_of(self._wake, stop, within=_POLL)
            finally:
                await self._drain()

    async def _run_cycle(self, free_slots: int) -> None:
        """Records outcomes and claims new deliveries in one transaction, then starts sending the new ones.

        An outcome is kept until it is recorded, however long that takes: without it the message would be sent twice.
        """
        async with self._writing:
            for claim in await self._record_and_claim(free_slots):
                # A database outage longer than the lease makes deliveries claimable that this process still holds.
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
            log.warning("database unavailable, will retry", error=type(error).__name__, outcomes=len(recorded))
            return ()
        for key in recorded:
            del self._outcomes[key]
        return claimed

    def _free_slots(self) -> int:
        if asyncio.get_running_loop().time() < self._unavailable_until:
            return 0
        return (1 if self._backoff else self._queue.slots) - len(self._sending)

    async def _deliver(self, claim: C) -> None:
        ids = traced(request_id=str(claim.event_id), traceparent=claim.traceparent)
        attributes: dict[str, str | int] = {"waybill.kind": self._queue.kind(claim), "waybill.attempt": claim.attempts}
        with ids, span(f"deliver {self._queue.channel}", "client", attributes) as attempt:
            began_at, clock = utc_now(), time.monotonic()
            outcome = await self._attempt(claim)
            outcome = replace(outcome, began_at=began_at, duration=time.monotonic() - clock)
            label = "postponed" if outcome.state == "pending" else outcome.state
            attempt.note({"waybill.outcome": label})
            if label in {"postponed", "failed"}:
                attempt.fail(label)
            OUTCOMES.labels(self._queue.channel, label).inc()
            write = log.warning if outcome.state == "failed" else log.info
            write("delivery attempted", state=outcome.state, cause=outcome.cause, **self._ids(claim))
        self._outcomes[claim.key] = outcome
        del self._sending[claim.key]
        self._wake.set()

    async def _attempt(self, claim: C) -> Outcome[C]:  # noqa: PLR0911 - one return for each possible outcome
        try:
            answer = await self._queue.send(claim)
        except NothingToSend as error:
            return Outcome(claim, "cancelled", str(error), is_receivers=False)
        except Refused as error:
            self._end_rest()
            return Outcome(claim, "failed", str(error), answer=error.answer)
        except Deferred as error:
            self._end_rest()
            return self._deferred(claim, str(error), error.answer)
        except ChannelUnavailable as error:
            self._back_off(error)
            pause = _jittered(error.retry_in)
            return Outcome(claim, "pending", str(error), pause, is_attempt=False, is_receivers=False)
        except Unavailable as error:
            detail = error.detail
            return Outcome(claim, "pending", detail, retry_in=_LINK_DELAY, is_attempt=False, is_receivers=False)
        except Exception as error:
            log.exception("delivery failed unexpectedly", **self._ids(claim))
            return replace(self._deferred(claim, type(error).__name__), is_receivers=False)
        self._end_rest()
        DELAY.labels(self._queue.channel).observe(max(0.0, (utc_now() - claim.created_at).total_seconds()))
        return Outcome(claim, "sent", answer=answer)

    def _deferred(self, claim: C, cause: str, answer: Answer | None = None) -> Outcome[C]:
        """Postpones with growing delays, and not before the receiver asks for it; fails when the queue gives up."""
        delay = self._queue.delay(claim)
        if delay is None:
            given_up = f"given up after {claim.attempts} attempts: {cause}" if claim.attempts > 1 else cause
            return Outcome(claim, "failed", given_up, answer=answer)
        asked = answer.retry_after if answer is not None else None
        return Outcome(claim, "pending", cause, max(_jittered(delay), asked or 0.0), answer=answer)

    def _back_off(self, error: ChannelUnavailable) -> None:
        """Pauses claims for a while; afterwards claims one delivery at a time until one succeeds."""
        now = asyncio.get_running_loop().time()
        if now >= self._unavailable_until:
            self._backoff = min(max(self._backoff * 2, _FIRST_BACKOFF), _MAX_BACKOFF)
            self._unavailable_until = now + _jittered(self._backoff)
            RESTING.labels(self._queue.channel).set(1)
            log.warning(
                "channel unavailable, will retry", cause=str(error), channel=self._queue.channel, pause=self._backoff
            )

    def _end_rest(self) -> None:
        self._backoff = 0
        RESTING.labels(self._queue.channel).set(0)

    async def _drain(self) -> None:
        """Waits up to `_DRAIN` seconds for deliveries that are being sent, and records their outcomes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN):
                while self._sending or self._outcomes:
                    self._wake.clear()
                    await self._run_cycle(0)
                    if self._sending or self._outcomes:
                        await first_of(self._wake, within=_POLL)
        if self._sending or self._outcomes:
            log.warning("stopped during deliveries", sending=len(self._sending), unrecorded=len(self._outcomes))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _renew(self) -> None:
        async with self._writing:
            if held := [*self._sending.values(), *(outcome.claim for outcome in self._outcomes.values())]:
                async with self._database.transaction() as session:
                    await self._queue.renew(session, held, lease=self._lease)

    async def _release_waiting(self) -> None:
        async with self._database.transaction() as session:
            has_released = await self._queue.release_waiting(session)
        if has_released:
            self._wake.set()

    async def _measure(self) -> None:
        await self._queue.close_idle()
        async with self._database.transaction() as session:
            pending, age = await self._queue.backlog(session)
        PENDING.labels(self._queue.channel).set(pending)
        OLDEST.labels(self._queue.channel).set(age)

    def _ids(self, claim: C) -> dict[str, Any]:
        return {"channel": self._queue.channel, **self._queue.ids(claim)}


def _jittered(seconds: float) -> float:
    """Varies a delay by a quarter, so that deliveries that failed together are not retried together."""
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards no secret
