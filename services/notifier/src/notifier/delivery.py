"""The deliverer: claims what is due, sends it, records what came of it.

Any number may run. A claim is a lease, taken in one short transaction (`FOR UPDATE SKIP LOCKED`) and renewed while the
sending goes on; what a killed deliverer held falls due again when its lease ends. Sending happens outside of any
transaction.

E-mail can't be sent exactly once: when we die between the server's acceptance and our record of it, the mail goes out
again, with the same Message-ID. That window is one short transaction; a database that is away is waited for.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from common.database import Database, utc_now
from common.errors import Unavailable
from common.health import Health
from common.http_client import service_client
from common.outages import is_outage
from common.settings import resource
from notifier import queries
from notifier.channels import ChannelAway, Deferred, Refused
from notifier.channels.mail import MailChannel
from notifier.channels.message import Mail
from notifier.composing import Composer, PointlessMail
from notifier.handlers import DELIVERIES_CHANNEL
from notifier.models import State
from notifier.queries import ClaimedDelivery
from notifier.settings import NotifierSettings
from notifier.wakeup import listen

log = structlog.get_logger(__name__)

OUTCOMES: Final = Counter("waybill_deliveries_total", "Attempts to deliver by what became of them.", ["outcome"])
DELAY: Final = Histogram(
    "waybill_delivery_delay_seconds",
    "From a delivery's planning to its acceptance by the other side.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600),
)
PENDING: Final = Gauge("waybill_deliveries_pending", "Deliveries that are neither settled nor waiting for a contact.")
OLDEST: Final = Gauge("waybill_deliveries_oldest_age_seconds", "Age of the oldest of them.")

_POLL: Final = 1.0
_MEASURE_EVERY: Final = 15.0
_LOOK_AGAIN: Final = 1000
"""Most deliveries without a contact that are looked at in one poll."""
_DRAIN: Final = 20.0
"""Seconds that a stop leaves to what is being sent."""
_FIRST_DELAY: Final = 2.0
_LONGEST_DELAY: Final = 3600.0
_MOST_ATTEMPTS: Final = 100
"""With these delays about four days, as RFC 5321 §4.5.4.1 has it."""
_LINK_DELAY: Final = 5.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
_RECORD_PAUSE: Final = 0.5


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
        composer = Composer(sender=settings.sender, public_url=settings.public_url, users=users)
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
        self._wake = asyncio.Event()
        self._has_more = False
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
                    await self._fill()
                    await _first(self._wake, stop, within=_POLL)
            finally:
                await self._drain()
                for helper in helpers:
                    helper.cancel()

    async def _fill(self) -> None:
        """Claims as many deliveries as there are free slots, and begins to send them."""
        free = self._free_slots()
        if free <= 0:
            return
        try:
            async with self._database.transaction() as session:
                claimed = await queries.claim_deliveries(session, limit=free, lease=self._lease)
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("database away, will claim again", error=type(error).__name__)
            return
        self._has_more = len(claimed) == free
        for delivery in claimed:
            if delivery.id not in self._sending:  # it may be, where the database was away for longer than the lease
                task = asyncio.create_task(self._deliver(delivery))
                self._sending[delivery.id] = task
                task.add_done_callback(partial(self._finished, delivery.id))

    def _free_slots(self) -> int:
        if asyncio.get_running_loop().time() < self._away_until:
            return 0
        return (1 if self._pause else self._slots) - len(self._sending)

    def _finished(self, delivery_id: UUID, task: asyncio.Task[None]) -> None:
        del self._sending[delivery_id]
        if self._has_more:
            self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a delivery was dropped, its lease will end", delivery_id=str(delivery_id), exc_info=error)

    async def _deliver(self, delivery: ClaimedDelivery) -> None:
        try:
            await self._channel.send(await self._composer.compose(delivery))
        except PointlessMail as error:
            await self._settle(delivery, "cancelled", str(error))
        except Refused as error:
            self._pause = 0
            await self._settle(delivery, "failed", str(error))
        except Deferred as error:
            self._pause = 0
            await self._defer(delivery, str(error))
        except ChannelAway as error:
            self._step_back(error)
            await self._postpone(delivery, 0, cause=str(error), counts=False)
        except Unavailable as error:
            await self._postpone(delivery, _LINK_DELAY, cause=error.detail, counts=False)
        except Exception as error:
            log.exception("a delivery failed unexpectedly", **_ids(delivery))
            await self._defer(delivery, type(error).__name__)
        else:
            self._pause = 0
            await self._settle(delivery, "sent", None)
            DELAY.observe(max(0.0, (utc_now() - delivery.created_at).total_seconds()))

    def _step_back(self, error: ChannelAway) -> None:
        """Nobody claims for a while, then one at a time until the other side is there again."""
        now = asyncio.get_running_loop().time()
        if now >= self._away_until:
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._away_until = now + _jittered(self._pause)
            log.warning("mail server away, will try again", cause=str(error), pause=round(self._pause, 1))

    async def _settle(self, delivery: ClaimedDelivery, state: State, cause: str | None) -> None:
        OUTCOMES.labels(state).inc()
        await self._record(lambda session: queries.settle_delivery(session, delivery.id, state, cause=cause))
        line = log.info if state == "sent" else log.warning
        line("delivery settled", state=state, cause=cause, attempts=delivery.attempts, **_ids(delivery))

    async def _defer(self, delivery: ClaimedDelivery, cause: str) -> None:
        """Later, and later each time; after some days never."""
        if delivery.attempts >= _MOST_ATTEMPTS:
            await self._settle(delivery, "failed", f"given up after {delivery.attempts} attempts: {cause}")
            return
        delay = min(_FIRST_DELAY * 2 ** (delivery.attempts - 1), _LONGEST_DELAY)
        await self._postpone(delivery, _jittered(delay), cause=cause, counts=True)

    async def _postpone(self, delivery: ClaimedDelivery, delay: float, *, cause: str, counts: bool) -> None:
        OUTCOMES.labels("postponed").inc()
        by = timedelta(seconds=delay)
        await self._record(
            lambda session: queries.postpone_delivery(session, delivery, by=by, cause=cause, counts=counts)
        )
        log.info("delivery postponed", cause=cause, seconds=round(delay, 1), **_ids(delivery))

    async def _record(self, write: Callable[[AsyncSession], Awaitable[None]]) -> None:
        """Writes what became of a delivery, however long that takes: to forget it would be to send a mail twice."""
        while True:
            try:
                async with self._database.transaction() as session:
                    await write(session)
            except (SQLAlchemyError, OSError) as error:
                log.warning("database away, holding an outcome", error=type(error).__name__)
                await asyncio.sleep(_RECORD_PAUSE)
            else:
                return

    async def _drain(self) -> None:
        if self._sending:
            _, late = await asyncio.wait(self._sending.values(), timeout=_DRAIN)
            for task in late:
                task.cancel()
            if late:
                log.warning("stopped while sending, another deliverer takes over", deliveries=len(late))
                await asyncio.gather(*late, return_exceptions=True)

    async def _renew(self) -> None:
        if self._sending:
            async with self._database.transaction() as session:
                await queries.renew_claims(session, list(self._sending), lease=self._lease)

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


def _jittered(seconds: float) -> float:
    """So that what failed together does not come back together."""
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards no secret


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
