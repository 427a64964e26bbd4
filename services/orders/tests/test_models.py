"""The rules of an order's state, without a database."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.db.database import new_id
from orders.errors import InvalidTransition
from orders.models import Money, Order, OrderStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)

STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "confirm": ("confirm", {}),
    "ship": ("ship", {}),
    "deliver": ("deliver", {}),
    "cancel as customer": ("cancel", {"by_customer": True}),
    "cancel as staff": ("cancel", {"by_customer": False}),
}
ALLOWED = {
    ("placed", "confirm"): "confirmed",
    ("placed", "cancel as customer"): "cancelled",
    ("placed", "cancel as staff"): "cancelled",
    ("confirmed", "ship"): "shipped",
    ("confirmed", "cancel as staff"): "cancelled",
    ("shipped", "deliver"): "delivered",
}


def an_order(status: OrderStatus = OrderStatus.PLACED, version: int = 1) -> Order:
    return Order(
        id=new_id(),
        customer_id=new_id(),
        status=status,
        total_amount=4900,
        currency="EUR",
        version=version,
        created_at=NOW,
        updated_at=NOW,
    )


def apply(order: Order, step: str) -> None:
    method, options = STEPS[step]
    getattr(order, method)(LATER, **options)


@pytest.mark.parametrize("status", OrderStatus)
@pytest.mark.parametrize("step", STEPS)
def test_each_state_allows_the_transitions_of_the_contract_and_no_others(status: OrderStatus, step: str) -> None:
    order = an_order(status, version=5)
    target = ALLOWED.get((status, step))
    if target is None:
        with pytest.raises(InvalidTransition):
            apply(order, step)
        assert (order.status, order.version, order.updated_at) == (status, 5, NOW)
    else:
        apply(order, step)
        assert (order.status, order.version, order.updated_at) == (target, 6, LATER)


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=8))
def test_the_version_counts_the_changes_and_a_final_state_is_never_left(steps: list[str]) -> None:
    order = an_order()
    states = [order.status]
    for step in steps:
        try:
            apply(order, step)
        except InvalidTransition:
            continue
        states.append(order.status)
    assert order.version == len(states)
    assert len(set(states)) == len(states), "no state is entered twice"
    assert not {OrderStatus.DELIVERED, OrderStatus.CANCELLED} & set(states[:-1])


def test_the_total_is_an_amount_in_the_orders_currency() -> None:
    assert an_order().total == Money(4900, "EUR")
