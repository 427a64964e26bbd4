"""One chaos run: prepares customers, places orders while processes die, waits until nothing changes, and counts."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from waybill_dev.base.background import background
from waybill_dev.base.state import State
from waybill_dev.chaos.count import CountRow, count
from waybill_dev.chaos.feed_subscriber import FeedSubscriber
from waybill_dev.chaos.plan import plan
from waybill_dev.chaos.shoppers import Purchases, Shopper, buy, open_shop
from waybill_dev.chaos.strikes import EXEMPT, strike_as_planned, until_all_run
from waybill_dev.chaos.subscriber import Subscriber
from waybill_dev.progress import say
from waybill_dev.supervision import control

PROGRESS_SECONDS = 10.0
COUNT_EVERY_SECONDS = 3.0
STALLED_SECONDS = 90.0
RECOVERY_SECONDS = 60.0


@dataclass
class Outcome:
    purchases: Purchases
    tally: Counter[str]
    rows: list[CountRow]
    ordering_seconds: float
    seconds: float

    @property
    def is_correct(self) -> bool:
        return all(row.is_correct for row in self.rows)


async def run(
    state: State, *, minutes: float | None, orders: int | None, pause: float | None, every: int, seed: int
) -> Outcome:
    """Places `orders`, or orders for `minutes`. Strikes after about `every` of them, or `pause` seconds if given.

    Raises LocalError when a process does not recover.
    """
    status = control.call(state, "status")
    began, since = time.monotonic(), datetime.now(UTC)
    purchases, shoppers, staff = await open_shop(status)
    subscriber = Subscriber(status["broker"]["amqp_url"])
    await subscriber.bind()
    over_http = FeedSubscriber(status["gateway"], status["admin"])
    await over_http.begin()
    await _persist_queue_list(state, status)
    tally: Counter[str] = Counter()
    deadline = time.monotonic() + minutes * 60 if minutes is not None else None
    names = [one["name"] for one in status["processes"] if one["name"] not in EXEMPT]
    strikes = plan(seed, names, every)
    try:
        async with background(subscriber.listen()), background(over_http.listen()):
            stop = asyncio.Event()
            async with background(_report_progress(purchases, tally)), asyncio.TaskGroup() as group:
                group.create_task(
                    strike_as_planned(
                        state,
                        strikes,
                        lambda: len(purchases.changes),
                        stop,
                        tally,
                        seconds_an_order=pause and pause / every,
                    )
                )
                await _place_orders(purchases, shoppers, staff, orders, deadline)
                stop.set()
            ordered = time.monotonic()
            say(f"{len(purchases.changes)} orders placed; waiting until nothing changes any more")
            await until_all_run(state, RECOVERY_SECONDS)
            # `status` is still right about addresses: restarted processes keep their ports.
            rows = await until_settled(
                lambda: count(
                    status,
                    purchases,
                    subscriber.received,
                    since,
                    state.logs / "mail.log",
                    over_http=over_http.received,
                ),
            )
        await subscriber.unbind()
    finally:
        for shopper in [*shoppers, staff]:
            await shopper.close()
    return Outcome(purchases, tally, rows, ordered - began, time.monotonic() - began)


async def _persist_queue_list(state: State, status: dict[str, Any]) -> None:
    """Restarts the local broker once, in order.

    A node writes the list of its quorum queues to disk when it stops, or within three minutes (3.10). A node that is
    killed before that comes back with a queue without a leader. Such a queue accepts nothing and blocks publishers.
    """
    if status["broker"]["pid"] is not None:
        await asyncio.to_thread(control.call, state, "restart", "rabbitmq")
        await until_all_run(state, RECOVERY_SECONDS)


async def _place_orders(
    purchases: Purchases, shoppers: list[Shopper], staff: Shopper, orders: int | None, deadline: float | None
) -> None:
    numbers = iter(range(orders)) if orders is not None else itertools.count()

    async def shop(shopper: Shopper, user_id: str) -> None:
        for number in numbers:  # shared: each takes the next
            await buy(shopper, user_id, staff, purchases, number)
            if deadline is not None and time.monotonic() > deadline:
                return

    async with asyncio.TaskGroup() as group:
        for shopper, user_id in zip(shoppers, purchases.customers, strict=True):
            group.create_task(shop(shopper, user_id))


async def until_settled(counting: Callable[[], Coroutine[Any, Any, list[CountRow]]]) -> list[CountRow]:
    """Counts until two counts are equal and correct, or nothing changed for STALLED_SECONDS. Returns the last."""
    last: list[CountRow] | None = None
    changed = time.monotonic()
    while True:
        try:
            rows = await counting()
        except (OSError, asyncpg.PostgresError, TimeoutError):
            rows = last or []
        if rows != last:
            last, changed = rows, time.monotonic()
        elif rows and (all(row.is_correct for row in rows) or time.monotonic() - changed > STALLED_SECONDS):
            return rows
        await asyncio.sleep(COUNT_EVERY_SECONDS)


async def _report_progress(purchases: Purchases, tally: Counter[str]) -> None:
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        say(f"{len(purchases.changes)} orders, {tally.total()} strikes")
