"""Changes of orders at the same time: by one process, by several, and with what goes wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text

from common.db.database import new_id
from common.db.driver_pool import DriverPool
from common.db.outages import is_outage
from common.testing.plugin import eventually
from orders import changing
from orders.errors import InvalidTransition
from orders.events import OrderConfirmed
from orders.models import TRANSITIONS

WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def place(desk: Any, count: int) -> list[UUID]:
    """New orders, by id."""
    await desk.stock("LAMP")
    return sorted([order.id for order in await asyncio.gather(*(desk.place(("LAMP", 1)) for _ in range(count)))])


@asynccontextmanager
async def locked(desk: Any, order_id: UUID) -> AsyncIterator[None]:
    """Another transaction has locked the order."""
    async with desk.database.transaction() as session:
        await session.execute(text("SELECT FROM orders WHERE id = :id FOR UPDATE"), {"id": order_id})
        yield


def a_change(order_id: UUID) -> changing.Change:
    return changing.Change(
        order_id=order_id,
        customer_id=None,
        event=OrderConfirmed,
        details={},
        expected=None,
        event_id=new_id(),
        traceparent=None,
    )


async def states(desk: Any, order_ids: list[UUID]) -> list[tuple[str, list[int]]]:
    """The state of each order and the versions of its recorded events."""
    found = []
    for order_id in order_ids:
        [order] = await desk.rows("SELECT status FROM orders WHERE id = :id", id=order_id)
        events = await desk.rows("SELECT version FROM outbox WHERE subject = :id ORDER BY id", id=str(order_id))
        found.append((order["status"], [event["version"] for event in events]))
    return found


async def test_changes_made_at_once_share_transactions(desk: Any) -> None:
    orders = await place(desk, 30)
    await asyncio.gather(*(desk.do("confirm", order) for order in orders))
    [row] = await desk.rows("SELECT count(DISTINCT xmin::text) AS transactions FROM orders")
    assert row["transactions"] <= 2
    assert await states(desk, orders) == [("confirmed", [1, 2])] * 30


async def test_a_change_the_database_refuses_fails_alone_and_writes_nothing(desk: Any) -> None:
    orders = await place(desk, 5)
    refusal = f"ALTER TABLE outbox ADD CONSTRAINT refusal CHECK (version = 1 OR subject <> '{orders[2]}')"
    async with desk.database.transaction() as session:
        await session.execute(text(refusal))
    outcomes = await asyncio.gather(*(desk.do("confirm", order) for order in orders), return_exceptions=True)
    assert isinstance(outcomes.pop(2), asyncpg.CheckViolationError)
    assert not any(isinstance(outcome, BaseException) for outcome in outcomes)
    expected = [("confirmed", [1, 2])] * 5
    expected[2] = ("placed", [1])
    assert await states(desk, orders) == expected
    assert await desk.count("order_timeline") == 9


async def test_an_order_that_another_transaction_has_locked_delays_no_other(desk: Any) -> None:
    first, second = await place(desk, 2)
    async with locked(desk, first):
        delayed = asyncio.create_task(desk.do("confirm", first))
        await eventually(lambda: desk.rows(WAITING))
        assert (await desk.do("confirm", second)).version == 2
        assert not delayed.done()
    assert (await delayed).version == 2


async def test_a_change_that_waits_too_long_for_its_order_is_not_made(desk: Any) -> None:
    [order] = await place(desk, 1)
    async with locked(desk, order):
        with pytest.raises(asyncpg.LockNotAvailableError) as refused:
            await desk.do("confirm", order)
    assert is_outage(refused.value)
    assert await states(desk, [order]) == [("placed", [1])]


async def test_a_change_that_timed_out_was_made_once_or_not_at_all(desk: Any) -> None:
    [order] = await place(desk, 1)
    driver = DriverPool(desk.database.endpoint, size=1, timeout=0.3, name="test")
    desk.change = changing.group_changes(driver, timeout=0.3)
    async with desk.database.transaction() as session:
        await session.execute(text("LOCK TABLE outbox"))
        with pytest.raises(TimeoutError) as unknown:
            await desk.do("confirm", order)
    assert is_outage(unknown.value)
    desk.change = changing.group_changes(desk.driver, timeout=10)
    await asyncio.gather(desk.do("confirm", order), return_exceptions=True)  # as its caller would, when in doubt
    assert await states(desk, [order]) == [("confirmed", [1, 2])]
    await driver.close()


async def test_orders_are_locked_by_id_so_that_two_groups_never_wait_for_each_other(desk: Any) -> None:
    first, second = await place(desk, 2)
    async with locked(desk, second):
        group = asyncio.create_task(
            changing.change_orders(desk.driver, changing.WAIT, [a_change(second), a_change(first)])
        )
        await eventually(lambda: desk.rows(WAITING))
        with pytest.raises(asyncpg.LockNotAvailableError):
            await desk.driver.fetch("SELECT FROM orders WHERE id = $1 FOR UPDATE NOWAIT", first)
    assert [row["version"] for row in await group] == [2, 2]


async def test_the_times_of_an_order_never_go_back(desk: Any) -> None:
    """The process that made the change before may have a clock that is ahead."""
    [order] = await place(desk, 1)
    [ahead] = await desk.rows("UPDATE orders SET updated_at = updated_at + interval '1 hour' RETURNING updated_at")
    confirmed = await desk.do("confirm", order)
    assert confirmed.updated_at == ahead["updated_at"]
    assert confirmed.updated_at - confirmed.created_at >= timedelta(hours=1)


async def test_changes_by_several_processes_are_made_as_if_one_after_the_other(desk: Any) -> None:
    """Each refusal names a state that the order was in, and that did not allow the change."""
    orders = await place(desk, 8)
    drivers = [DriverPool(desk.database.endpoint, size=2, timeout=10, name=f"test-{n}") for n in range(3)]
    processes = [changing.group_changes(driver, timeout=10) for driver in drivers]
    steps = {"cancel": "cancelled", "deliver": "delivered", "ship": "shipped", "confirm": "confirmed"}
    attempts = [(order, step) for _ in range(4) for order in orders for step in steps]

    async def attempt(number: int, order: UUID, step: str) -> Any:
        desk.change = processes[number % 3]  # read before the call waits
        return await desk.do(step, order)

    outcomes = await asyncio.gather(
        *(attempt(number, *one) for number, one in enumerate(attempts)), return_exceptions=True
    )
    for order in orders:
        made = {
            outcome.version: outcome.status
            for (changed, _), outcome in zip(attempts, outcomes, strict=True)
            if changed == order and not isinstance(outcome, BaseException)
        }
        history = ["placed", *(made[version] for version in sorted(made))]
        assert sorted(made) == list(range(2, len(history) + 1))
        assert set(pairwise(history)) <= set(TRANSITIONS)
        assert await states(desk, [order]) == [(history[-1], list(range(1, len(history) + 1)))]
        for (changed, step), outcome in zip(attempts, outcomes, strict=True):
            if changed == order and isinstance(outcome, BaseException):
                assert isinstance(outcome, InvalidTransition)
                state = outcome.detail.removeprefix("The order is ").removesuffix(".")
                assert state in history
                assert (state, steps[step]) not in TRANSITIONS
    for driver in drivers:
        await driver.close()
