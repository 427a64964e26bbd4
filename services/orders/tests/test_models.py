"""The rules of an order's state, without a database."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.models import CUSTOMERS_TRANSITIONS, TRANSITIONS, OrderStatus

STAFF = {
    ("placed", "confirmed"),
    ("placed", "cancelled"),
    ("confirmed", "shipped"),
    ("confirmed", "cancelled"),
    ("shipped", "delivered"),
}
CUSTOMERS = {("placed", "cancelled")}


@pytest.mark.parametrize(("before", "after"), [*itertools.product(OrderStatus, OrderStatus)])
def test_each_state_allows_the_transitions_of_the_contract_and_no_others(
    before: OrderStatus, after: OrderStatus
) -> None:
    assert ((before, after) in TRANSITIONS) == ((before, after) in STAFF)
    assert ((before, after) in CUSTOMERS_TRANSITIONS) == ((before, after) in CUSTOMERS)


@given(st.lists(st.sampled_from(OrderStatus), max_size=8))
def test_a_final_state_is_never_left_and_no_state_is_entered_twice(wanted: list[OrderStatus]) -> None:
    states = [OrderStatus.PLACED]
    for after in wanted:
        if (states[-1], after) in TRANSITIONS:
            states.append(after)
    assert len(set(states)) == len(states)
    assert not {OrderStatus.DELIVERED, OrderStatus.CANCELLED} & set(states[:-1])
