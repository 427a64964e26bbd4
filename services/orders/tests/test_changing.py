"""The grouped statement that changes orders does what the plain way does: lock with the ORM, check, write."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import new_id, utc_now
from common.errors import AppError, NotFound, PreconditionFailed
from common.messaging import outbox
from common.observability.trace import traced
from orders.errors import InvalidTransition
from orders.events import OrderCancelled, OrderChanged, OrderConfirmed, OrderDelivered, OrderShipped
from orders.models import Money, Order, OrderLine, TimelineEntry
from orders.queries import OrderView

ORDERS: Final = 10
TRACEPARENT: Final = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
UNIQUE: Final = {"id", "order_id", "subject", "event_id", "occurred_at", "created_at", "updated_at", "placed_at"}
STEPS: Final[dict[str, tuple[type[OrderChanged], tuple[str, ...]]]] = {
    "confirm": (OrderConfirmed, ("placed",)),
    "ship": (OrderShipped, ("confirmed",)),
    "deliver": (OrderDelivered, ("shipped",)),
    "cancel": (OrderCancelled, ("placed", "confirmed")),
}


@dataclass(frozen=True)
class Attempt:
    """One change of the order with the number `order`, -1 for one that does not exist. `by` makes a cancellation."""

    order: int
    step: str
    expected: frozenset[int] | None
    by: str = "staff"
    details: dict[str, str | None] = field(default_factory=dict)

    def options(self, customer: UUID) -> dict[str, Any]:
        if self.step != "cancel":
            return {"expected": self.expected, **self.details}
        customers = {"staff": None, "customer": customer, "stranger": new_id()}
        return {"expected": self.expected, "customer_id": customers[self.by], **self.details}


def attempts() -> st.SearchStrategy[Attempt]:
    text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
    order = st.sampled_from([*range(ORDERS)] * 4 + [-1])
    expected = st.none() | st.frozensets(st.integers(0, 5) | st.just(999_999_999), max_size=3)
    common = {"order": order, "expected": st.one_of(st.none(), st.none(), expected)}
    return st.one_of(
        st.builds(Attempt, step=st.sampled_from(["confirm", "deliver"]), **common),
        st.builds(
            Attempt,
            step=st.just("ship"),
            details=st.fixed_dictionaries({"carrier": text, "tracking_number": text}),
            **common,
        ),
        st.builds(
            Attempt,
            step=st.just("cancel"),
            by=st.sampled_from(["staff", "customer", "stranger"]),
            details=st.fixed_dictionaries({"reason": st.none() | text}),
            **common,
        ),
    )


async def change_plainly(session: AsyncSession, order_id: UUID, step: str, **options: Any) -> OrderView:
    """The reference: what the statement does, by the ORM."""
    expected, is_customer = options.pop("expected", None), options.get("customer_id") is not None
    event_class, allowed = STEPS[step]
    order = await session.scalar(select(Order).where(Order.id == order_id).with_for_update(), execution_options=_FRESH)
    if order is None or (is_customer and order.customer_id != options["customer_id"]):
        raise NotFound("There is no such order.")
    if expected is not None and order.version not in expected:
        raise PreconditionFailed("The order has changed.")
    if order.status not in (("placed",) if is_customer else allowed):
        raise InvalidTransition(f"The order is {order.status}.")
    if step == "cancel":
        options = {"reason": options["reason"], "cancelled_by": "customer" if is_customer else "staff"}
    total = Money(order.total_amount, order.currency)
    event = event_class(order_id=order.id, customer_id=order.customer_id, total=total, **options)
    order.status, order.version, order.updated_at = event_class.status, order.version + 1, utc_now()
    change: dict[str, Any] = {"version": order.version, "occurred_at": order.updated_at}
    session.add(TimelineEntry(order_id=order.id, type=event.type, data=event.model_dump(mode="json"), **change))
    await outbox.record(session, event, subject=order.id, **change)
    lines = await session.scalars(select(OrderLine).where(OrderLine.order_id == order.id).order_by(OrderLine.position))
    return OrderView(
        id=order.id,
        customer_id=order.customer_id,
        status=order.status,
        lines=[_line(line, order.currency) for line in lines],
        total=total,
        note=order.note,
        version=order.version,
        created_at=order.created_at,
        updated_at=order.updated_at,
    )


_FRESH: Final = {"populate_existing": True}


def _line(line: OrderLine, currency: str) -> dict[str, Any]:
    price = {"amount": line.unit_amount, "currency": currency}
    return {"sku": line.sku, "name": line.name, "quantity": line.quantity, "unit_price": price}


async def outcome(change: Awaitable[OrderView]) -> Any:
    """What the caller sees, without ids and times."""
    try:
        order = await change
    except AppError as refused:
        return type(refused), refused.detail
    return replace(order, id=UUID(int=0), created_at=None, updated_at=None)  # type: ignore[arg-type]


async def written(desk: Any, order_ids: Sequence[UUID]) -> list[Any]:
    """The rows of each order in every table, without ids and times; the times of one version must be equal."""
    orders, lines, entries, events = [
        await desk.rows(f"SELECT * FROM {rows}", ids=list(order_ids))  # noqa: S608 - a test's own words
        for rows in (
            "orders WHERE id = ANY (:ids)",
            "order_lines WHERE order_id = ANY (:ids) ORDER BY position",
            "order_timeline WHERE order_id = ANY (:ids) ORDER BY version",
            "outbox WHERE subject::uuid = ANY (:ids) ORDER BY id",
        )
    ]
    found = []
    for order_id in order_ids:
        [order] = [row for row in orders if row["id"] == order_id]
        of_order = [[row for row in rows if row["order_id"] == order_id] for rows in (lines, entries)]
        of_order.append([row for row in events if row["subject"] == str(order_id)])
        times = [event["occurred_at"] for event in of_order[2]]
        assert [entry["occurred_at"] for entry in of_order[1]] == times == sorted(times)
        assert (order["created_at"], order["updated_at"]) == (times[0], times[-1])
        found.append([[_without(row, UNIQUE) for row in rows] for rows in ([order], *of_order)])
    assert len({event["event_id"] for event in events}) == len(events)
    return found


def _without(row: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {
        name: _without(value, names) if isinstance(value, dict) else value
        for name, value in row.items()
        if name not in names
    }


async def place(desk: Any) -> list[UUID]:
    """Half of the orders for the statement, half for the reference, of one and of three lines."""
    lines: list[tuple[str, int]] = [("LAMP", 2), ("BULB", 1), ("LAMP", 1)]
    orders = [desk.place(*lines[: 3 - 2 * (n % 2)], note=f"note {n}") for n in [*range(ORDERS)] * 2]
    return [order.id for order in await asyncio.gather(*orders)]


HISTORIES: Final = st.lists(st.lists(attempts(), min_size=1, max_size=16), min_size=1, max_size=5)
"""Ten in each example. The changes of a round are made at once, several of one order among them."""


def examples(count: int) -> hypothesis_settings:
    unsuitable = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return hypothesis_settings(max_examples=count, deadline=None, suppress_health_check=unsuitable)


@examples(40)
@given(rounds=HISTORIES)
async def test_random_histories_are_the_same_as_by_the_orm(desk: Any, rounds: list[list[Attempt]]) -> None:
    await make_both_ways(desk, rounds)


@pytest.mark.slow
@examples(100)
@given(rounds=HISTORIES)
async def test_thousands_of_random_histories_are_the_same_as_by_the_orm(desk: Any, rounds: list[list[Attempt]]) -> None:
    await make_both_ways(desk, rounds)


async def make_both_ways(desk: Any, rounds: list[list[Attempt]]) -> None:
    await desk.stock("LAMP")
    await desk.stock("BULB", 350)
    with traced(traceparent=TRACEPARENT):
        ids = await place(desk)
        ours, plain = [*ids[:ORDERS], new_id()], [*ids[ORDERS:], new_id()]
        for changes in rounds:
            done = await asyncio.gather(
                *(outcome(desk.do(one.step, ours[one.order], **one.options(desk.customer))) for one in changes)
            )
            async with desk.database.transaction() as session:
                expected = [
                    await outcome(change_plainly(session, plain[one.order], one.step, **one.options(desk.customer)))
                    for one in changes
                ]
            assert done == expected
    assert await written(desk, ours[:-1]) == await written(desk, plain[:-1])
