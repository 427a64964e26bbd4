"""A run: a shop is opened, orders go in while processes die, all comes to rest, and the count is taken."""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from waybill_dev.base.state import State
from waybill_dev.chaos.count import Line, count
from waybill_dev.chaos.kills import strike, until_all_run
from waybill_dev.chaos.shoppers import Purchases, Shopper, buy, open_shop
from waybill_dev.chaos.subscriber import Subscriber
from waybill_dev.progress import say
from waybill_dev.supervision import control

TOLD_EVERY_SECONDS = 10.0
COUNT_EVERY_SECONDS = 3.0
STALLED_SECONDS = 90.0
BACK_SECONDS = 60.0


@dataclass
class Outcome:
    purchases: Purchases
    tally: Counter[str]
    lines: list[Line]
    buying_seconds: float
    seconds: float

    @property
    def is_well(self) -> bool:
        return all(line.is_well for line in self.lines)


async def run(state: State, *, minutes: float | None, orders: int | None, pause: float) -> Outcome:
    """Ends when `orders` are in or `minutes` are over. Raises LocalError when something does not come back."""
    status = control.call(state, "status")
    began, since = time.monotonic(), datetime.now(UTC)
    purchases, shoppers, staff = await open_shop(status["gateway"], status["admin"])
    subscriber = Subscriber(status["broker"]["amqp_url"])
    await subscriber.bind()
    await _write_down_queues(state, status)
    tally: Counter[str] = Counter()
    deadline = time.monotonic() + minutes * 60 if minutes is not None else None
    try:
        async with _meanwhile(subscriber.listen()):
            stop = asyncio.Event()
            async with _meanwhile(_tell(purchases, tally)), asyncio.TaskGroup() as group:
                group.create_task(strike(state, stop, tally, pause))
                await _shopping(purchases, shoppers, staff, orders, deadline)
                stop.set()
            bought = time.monotonic()
            say(f"{len(purchases.changes)} orders are in; waiting until nothing moves any more")
            await until_all_run(state, BACK_SECONDS)
            # The addresses stay: the processes came back on the ports that they had.
            lines = await at_rest(
                lambda: count(status, purchases, subscriber.received, since, state.logs / "mail.log"),
            )
        await subscriber.unbind()
    finally:
        for shopper in [*shoppers, staff]:
            await shopper.close()
    return Outcome(purchases, tally, lines, bought - began, time.monotonic() - began)


async def _write_down_queues(state: State, status: dict[str, Any]) -> None:
    """Stops and starts our broker in order, once.

    A node writes down which quorum queues it has when it stops, or within three minutes (3.10). One that is killed
    before that comes back with a queue without a leader, which takes nothing and holds up who publishes to it.
    """
    if status["broker"]["pid"] is not None:
        await asyncio.to_thread(control.call, state, "restart", "rabbitmq")
        await until_all_run(state, BACK_SECONDS)


async def _shopping(
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


async def at_rest(counting: Callable[[], Coroutine[Any, Any, list[Line]]]) -> list[Line]:
    """The count, once it is well and stands still, or once it has not moved for long."""
    last: list[Line] | None = None
    moved = time.monotonic()
    while True:
        try:
            lines = await counting()
        except (OSError, asyncpg.PostgresError, TimeoutError):
            lines = last or []
        if lines != last:
            last, moved = lines, time.monotonic()
        elif lines and (all(line.is_well for line in lines) or time.monotonic() - moved > STALLED_SECONDS):
            return lines
        await asyncio.sleep(COUNT_EVERY_SECONDS)


async def _tell(purchases: Purchases, tally: Counter[str]) -> None:
    while True:
        await asyncio.sleep(TOLD_EVERY_SECONDS)
        say(f"{len(purchases.changes)} orders, {tally.total()} kills and restarts")


@contextlib.asynccontextmanager
async def _meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
