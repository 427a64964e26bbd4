"""The deliverer: claims what is due, sends it, records what came of it.

Any number may run. A claim is a lease, taken in one short transaction (`FOR UPDATE SKIP LOCKED`) and renewed while the
sending goes on; what a killed deliverer held falls due again when its lease ends. Sending happens outside of any
transaction.

E-mail can't be sent exactly once: when we die between the server's acceptance and our record of it, the mail goes out
again, with the same Message-ID. That window is as short as a transaction; a database that is away is waited for.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy.exc import SQLAlchemyError

from common.database import Database, utc_now
from common.errors import Unavailable
from common.health import Health
from common.http_client import service_client
from common.outages import is_outage
from common.settings import resource
from common.spans import span
from common.trace import traced
from notifier import queries
from notifier.channels import ChannelAway, Deferred, Refused
from notifier.channels.mail import MailChannel
from notifier.channels.message import Mail
from notifier.composing import Composer, PointlessMail
from notifier.handlers import DELIVERIES_CHANNEL
from notifier.outcomes import Outcome, deferred, jittered, record
from notifier.queries import ClaimedDelivery
from notifier.settings import NotifierSettings
from notifier.wakeup import listen

log = structlog.get_logger(__name__)

OUTCOMES: Final = Counter("waybill_deliveries_total", "Attempts to deliver by what became of them.", ["outcome"])
for _outcome in ("sent", "postponed", "failed", "cancelled"):
    OUTCOMES.labels(_outcome)  # zero from the start, so that the first case counts
DELAY: Final = Histogram(
    "waybill_delivery_delay_seconds",
    "From a delivery's planning to its acceptance by the other side.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 3600),
)
PENDING: Final = Gauge("waybill_deliveries_pending", "Deliveries that are neither settled nor waiting for a contact.")
OLDEST: Final = Gauge("waybill_deliveries_oldest_age_seconds", "Age of the oldest of them.")

_POLL: Final = 1.0
_MEASURE_EVERY: Final = 15.0
_LOOK_AGAIN: Final = 1000
"""Most deliveries without a contact that are looked at in one poll."""
_DRAIN: Final = 20.0
"""Seconds that a stop leaves to what is being sent."""
_LINK_DELAY: Final = 5.0
"""Seconds until users, who was away, is asked for a link again."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0


class Channel(Protocol):
    async def send(self, mail: Mail) -> None: ...
    async def rest(self) -> None: ...


async def deliver(settings: NotifierSettings, health: Health, stop: asyncio.Event) -> None:
    """The `deliver` role: runs until `stop`, through any outage of PostgreSQL, users and the mail server."""
    async with contextlib.AsyncExitStack() as stack:
        database = Database.open(settings, role="deliver")
        stack.push_async_callback(database.close)
        health.add("postgres", database.ping)
        users = await stack.enter_async_context(
            service_client(settings, base_url=settings.users_url, scope="links:issue", resource=resource("users"))
        )
        channel = MailChannel(settings)
        stack.push_async_callback(channel.close)
        composer = Composer(sender=settings.sender, pages=settings.link_pages, users=users)
        lease = timedelta(seconds=settings.delivery_lease)
        await Deliverer(database, composer, channel, slots=settings.smtp_connections, lease=lease).run(stop)


class Deliverer:
    """Sends up to `slots` deliveries side by side; holds each by a lease that it renews."""

    def __init__(
        self, database: Database, composer: Composer, channel: Channel, *, slots: int, lease: timedelta
    ) -> None:
        self._database = database
        self._composer = composer
        self._channel = channel
        self._slots = slots
        self._lease = lease
        self._sending: dict[UUID, asyncio.Task[None]] = {}
        self._outcomes: dict[UUID, Outcome] = {}
        self._wake = asyncio.Event()
        self._pause = 0.0
        self._away_until = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(work)
                for work in (
                    listen(DELIVERIES_CHANNEL, self._wake.set, dsn=self._database.dsn, name="notifier-deliver-bell"),
                    self._every(self._lease.total_seconds() / 3, self._renew),
                    self._every(_POLL, self._release_overlooked),
                    self._every(_MEASURE_EVERY, self._measure),
                )
            ]
            try:
                while not stop.is_set():
                    self._wake.clear()
                    await self._turn(self._free_slots())
                    await _first(self._wake, stop, within=_POLL)
            finally:
                await self._drain()
                for helper in helpers:
                    helper.cancel()

    async def _turn(self, free_slots: int) -> None:
        """One transaction: records what came of deliveries and claims new ones, which are then begun.

        An outcome is kept until it is recorded, however long that takes: to forget it would be to send a mail twice.
        """
        recorded = dict(self._outcomes)
        if not recorded and free_slots <= 0:
            return
        claimed: list[ClaimedDelivery] = []
        try:
            async with self._database.transaction() as session:
                await record(session, list(recorded.values()))
                if free_slots > 0:
                    claimed = await queries.claim_deliveries(session, limit=free_slots, lease=self._lease)
        except (SQLAlchemyError, OSError) as error:
            log.warning("database away, will try again", error=type(error).__name__, outcomes=len(recorded))
            return
        for delivery_id in recorded:
            del self._outcomes[delivery_id]
        for delivery in claimed:
            # It may be held already, where the database was away for longer than the lease.
            if delivery.id not in self._sending and delivery.id not in self._outcomes:
                self._sending[delivery.id] = asyncio.create_task(self._deliver(delivery))

    def _free_slots(self) -> int:
        if asyncio.get_running_loop().time() < self._away_until:
            return 0
        return (1 if self._pause else self._slots) - len(self._sending)

    async def _deliver(self, delivery: ClaimedDelivery) -> None:
        ids = traced(request_id=str(delivery.notification_id), traceparent=delivery.traceparent)
        facts = {"waybill.kind": delivery.kind, "waybill.attempt": delivery.attempts}
        with ids, span("deliver mail", "client", facts) as attempt:
            outcome = await self._attempt(delivery)
            became = "postponed" if outcome.state == "pending" else outcome.state
            attempt.note({"waybill.outcome": became})
            if became in {"postponed", "failed"}:
                attempt.fail(became)
            OUTCOMES.labels(became).inc()
            line = log.warning if outcome.state == "failed" else log.info
            line("delivery attempted", state=outcome.state, cause=outcome.cause, **_ids(delivery))
        self._outcomes[delivery.id] = outcome
        del self._sending[delivery.id]
        self._wake.set()

    async def _attempt(self, delivery: ClaimedDelivery) -> Outcome:  # noqa: PLR0911 - one for each way it can end
        try:
            await self._channel.send(await self._composer.compose(delivery))
        except PointlessMail as error:
            return Outcome(delivery, "cancelled", str(error))
        except Refused as error:
            self._pause = 0
            return Outcome(delivery, "failed", str(error))
        except Deferred as error:
            self._pause = 0
            return deferred(delivery, str(error))
        except ChannelAway as error:
            self._step_back(error)
            return Outcome(delivery, "pending", str(error), counts=False)
        except Unavailable as error:
            return Outcome(delivery, "pending", error.detail, retry_in=_LINK_DELAY, counts=False)
        except Exception as error:
            log.exception("a delivery failed unexpectedly", **_ids(delivery))
            return deferred(delivery, type(error).__name__)
        self._pause = 0
        DELAY.observe(max(0.0, (utc_now() - delivery.created_at).total_seconds()))
        return Outcome(delivery, "sent")

    def _step_back(self, error: ChannelAway) -> None:
        """Nobody claims for a while, then one at a time until the other side is there again."""
        now = asyncio.get_running_loop().time()
        if now >= self._away_until:
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._away_until = now + jittered(self._pause)
            log.warning("mail server away, will try again", cause=str(error), pause=round(self._pause, 1))

    async def _drain(self) -> None:
        """Finishes what is being sent, and records it, as far as time allows."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN):
                while self._sending or self._outcomes:
                    self._wake.clear()
                    await self._turn(0)
                    if self._sending or self._outcomes:
                        await _first(self._wake, within=_POLL)
        if self._sending or self._outcomes:
            log.warning("stopped in between", sending=len(self._sending), unrecorded=len(self._outcomes))
        for task in self._sending.values():
            task.cancel()
        await asyncio.gather(*self._sending.values(), return_exceptions=True)

    async def _renew(self) -> None:
        if held := [*self._sending, *self._outcomes]:
            async with self._database.transaction() as session:
                await queries.renew_claims(session, held, lease=self._lease)

    async def _release_overlooked(self) -> None:
        async with self._database.transaction() as session:
            released = await queries.release_overlooked(session, limit=_LOOK_AGAIN)
        if released:
            self._wake.set()

    async def _measure(self) -> None:
        await self._channel.rest()
        async with self._database.transaction() as session:
            pending, age = await queries.backlog(session)
        PENDING.set(pending)
        OLDEST.set(age)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception as error:
                if not is_outage(error):
                    raise
                log.warning("database away", error=type(error).__name__)


def _ids(delivery: ClaimedDelivery) -> dict[str, Any]:
    return {
        "delivery_id": str(delivery.id),
        "event_id": str(delivery.notification_id),
        "user_id": str(delivery.user_id),
        "order_id": str(delivery.order_id) if delivery.order_id else None,
        "kind": delivery.kind,
    }


async def _first(*events: asyncio.Event, within: float) -> None:
    """Returns when any of the events is set, or after `within` seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
