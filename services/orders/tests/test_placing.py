"""Placing an order: priced from the catalogue, in one transaction, once per idempotency key."""

import asyncio
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from common.db.database import new_id
from common.observability.trace import traced
from common.testing.plugin import eventually
from common.web.idempotency import IdempotencyKey, IdempotencyKeyReused, RequestInFlight
from orders import queries
from orders.errors import InactiveProduct, MixedCurrencies, TotalTooLarge, UnknownSku
from orders.models import MAX_PRICE, MAX_TOTAL, Money

TABLES = ("orders", "order_lines", "order_timeline", "outbox")


def a_key(value: str = "key-1", request: bytes = b"1") -> IdempotencyKey:
    return IdempotencyKey(value, request.ljust(32))


async def assert_nothing_written(desk: Any) -> None:
    assert [await desk.count(table) for table in TABLES] == [0, 0, 0, 0]


async def test_an_order_is_priced_from_the_catalogue(desk: Any) -> None:
    await desk.stock("LAMP", 4900)
    await desk.stock("BULB", 350)
    order = await desk.place(("BULB", 4), ("LAMP", 1), note="Mind the dog")
    assert order.total == Money(4 * 350 + 4900, "EUR")
    assert [(line["sku"], line["quantity"], line["unit_price"]["amount"]) for line in order.lines] == [
        ("BULB", 4, 350),
        ("LAMP", 1, 4900),
    ]
    assert (order.status, order.version, order.note) == ("placed", 1, "Mind the dog")


async def test_order_lines_timeline_and_event_are_written_together(desk: Any) -> None:
    await desk.stock("LAMP", 4900)
    with traced(traceparent="00-" + "ab" * 16 + "-" + "cd" * 8 + "-01") as trace:
        order = await desk.place(("LAMP", 2))
    [line] = await desk.rows("SELECT * FROM order_lines")
    assert line == {
        "order_id": order.id,
        "position": 1,
        "sku": "LAMP",
        "name": "The LAMP",
        "quantity": 2,
        "unit_amount": 4900,
    }
    [entry] = await desk.rows("SELECT * FROM order_timeline")
    [event] = await desk.rows("SELECT * FROM outbox")
    assert (entry["order_id"], entry["version"], entry["type"]) == (order.id, 1, "orders.order.placed.v1")
    assert (event["subject"], event["version"], event["type"]) == (str(order.id), 1, "orders.order.placed.v1")
    assert event["data"] == entry["data"]
    assert event["occurred_at"] == entry["occurred_at"] == order.created_at
    assert event["traceparent"] == trace.traceparent


async def test_an_order_keeps_name_and_price_when_the_catalogue_changes(desk: Any) -> None:
    await desk.stock("LAMP", 4900)
    order = await desk.place(("LAMP", 1))
    await desk.stock("LAMP", 1)
    confirmed = await desk.do("confirm", order.id)
    assert (confirmed.total, confirmed.lines) == (order.total, order.lines)


async def test_the_same_product_may_be_on_several_lines(desk: Any) -> None:
    await desk.stock("LAMP", 100)
    order = await desk.place(("LAMP", 1), ("LAMP", 1000))
    assert [line["quantity"] for line in order.lines] == [1, 1000]
    assert order.total.amount == 100_100


@pytest.mark.parametrize(
    ("lines", "error", "positions"),
    [
        ([("LAMP", 1), ("NONE", 1), ("GONE", 1), ("NADA", 1)], UnknownSku, [1, 3]),
        ([("lamp", 1)], UnknownSku, [0]),
        ([("LAMP", 1), ("GONE", 1)], InactiveProduct, [1]),
        ([("LAMP", 1), ("DOLLAR", 1), ("LAMP", 1)], MixedCurrencies, [1]),
    ],
)
async def test_lines_that_cannot_be_sold_are_named_and_nothing_is_written(
    desk: Any, lines: list[tuple[str, int]], error: type[UnknownSku], positions: list[int]
) -> None:
    await desk.stock("LAMP")
    await desk.stock("GONE", active=False)
    await desk.stock("DOLLAR", currency="USD")
    with pytest.raises(error) as refused:
        await desk.place(*lines)
    assert [part["loc"] for part in refused.value.errors or ()] == [["body", "lines", n, "sku"] for n in positions]
    await assert_nothing_written(desk)


async def test_a_total_that_json_readers_would_round_is_refused(desk: Any) -> None:
    await desk.stock("GOLD", MAX_PRICE)
    with pytest.raises(TotalTooLarge):
        await desk.place(*[("GOLD", 1000)] * 10)
    await assert_nothing_written(desk)
    order = await desk.place(*[("GOLD", 1000)] * 9)
    assert order.total.amount == 9 * 10**15 < MAX_TOTAL


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(lines=st.lists(st.tuples(st.integers(0, MAX_PRICE), st.integers(1, 1000)), min_size=1, max_size=100))
async def test_the_total_is_exactly_the_sum_of_the_lines(desk: Any, lines: list[tuple[int, int]]) -> None:
    total = sum(price * quantity for price, quantity in lines)
    prefix = new_id().hex
    for number, (price, _) in enumerate(lines):
        await desk.stock(f"{prefix}-{number}", price)
    order_lines = [(f"{prefix}-{number}", quantity) for number, (_, quantity) in enumerate(lines)]
    if total > MAX_TOTAL:
        with pytest.raises(TotalTooLarge):
            await desk.place(*order_lines)
        return
    order = await desk.place(*order_lines)
    assert order.total.amount == total
    [row] = await desk.rows(
        "SELECT total_amount, (data -> 'total' ->> 'amount')::numeric AS event_total FROM orders JOIN order_timeline"
        " ON order_id = orders.id WHERE orders.id = :id",
        id=order.id,
    )
    assert row == {"total_amount": total, "event_total": total}


async def test_an_event_that_cannot_be_recorded_leaves_no_order(desk: Any) -> None:
    await desk.stock("LAMP")
    async with desk.database.transaction() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("ALTER TABLE outbox ADD CONSTRAINT no_more CHECK (false)")
    with pytest.raises(asyncpg.CheckViolationError):
        await desk.place(("LAMP", 1), key=a_key())
    await assert_nothing_written(desk)


async def test_orders_placed_at_once_succeed_or_fail_independently(desk: Any) -> None:
    """Concurrent orders share a statement."""
    await desk.stock("LAMP", 7)
    await desk.stock("GONE", active=False)
    attempts = [desk.place(("LAMP", n), ("LAMP", 1)) for n in range(1, 41)]
    attempts[10:10] = [desk.place(("LAMP", 1), ("NONE", 1)), desk.place(("GONE", 1))]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[10:12]] == [UnknownSku, InactiveProduct]
    placed = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert [order.total.amount for order in placed] == [7 * (n + 1) for n in range(1, 41)]
    assert [await desk.count(table) for table in TABLES] == [40, 80, 40, 40]
    for order in placed:
        assert await queries.read_order(desk.driver, order.id) == order


async def test_orders_placed_one_after_the_other_sort_by_id(desk: Any) -> None:
    await desk.stock("LAMP")
    orders = [await desk.place(("LAMP", 1)) for _ in range(20)]
    assert orders == sorted(orders, key=lambda order: order.id)
    assert orders == sorted(orders, key=lambda order: order.created_at)


async def test_a_request_sent_again_with_its_key_gets_the_first_answer(desk: Any) -> None:
    await desk.stock("LAMP")
    first = await desk.place(("LAMP", 1), key=a_key())
    await desk.do("confirm", first.id)
    await desk.stock("LAMP", 1, active=False)
    assert await desk.place(("LAMP", 1), key=a_key()) == first
    assert await desk.count("orders") == await desk.count("order_lines") == 1


async def test_a_key_that_comes_with_another_request_is_refused(desk: Any) -> None:
    await desk.stock("LAMP")
    await desk.place(("LAMP", 1), key=a_key(request=b"1"))
    for lines in ([("LAMP", 2)], [("NONE", 1)]):
        with pytest.raises(IdempotencyKeyReused):
            await desk.place(*lines, key=a_key(request=b"2"))
    assert await desk.count("orders") == 1


async def test_a_refused_request_leaves_its_key_free(desk: Any) -> None:
    with pytest.raises(UnknownSku):
        await desk.place(("LAMP", 1), key=a_key())
    await desk.stock("LAMP")
    assert (await desk.place(("LAMP", 1), key=a_key())).status == "placed"


async def test_keys_of_different_customers_are_different_keys(desk: Any) -> None:
    await desk.stock("LAMP")
    mine = await desk.place(("LAMP", 1), key=a_key())
    theirs = await desk.place(("LAMP", 1), key=a_key(), customer_id=new_id())
    assert mine.id != theirs.id


async def test_one_key_in_twenty_requests_at_once_creates_one_order(desk: Any) -> None:
    await desk.stock("LAMP")
    outcomes = await asyncio.gather(*(desk.place(("LAMP", 1), key=a_key()) for _ in range(20)), return_exceptions=True)
    others = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert all(isinstance(other, RequestInFlight) for other in others)
    assert len({outcome.id for outcome in outcomes if not isinstance(outcome, BaseException)}) == 1
    assert [await desk.count(table) for table in TABLES] == [1, 1, 1, 1]


async def test_a_key_whose_request_is_in_flight_is_refused_without_waiting(desk: Any) -> None:
    await desk.stock("LAMP")
    async with desk.database.transaction() as session:
        connection = await session.connection()
        lock = "SELECT pg_advisory_xact_lock(hashtextextended($1::text || $2::text, 0))"
        await connection.exec_driver_sql(lock, (str(desk.customer), "key-1"))
        with pytest.raises(RequestInFlight):
            await desk.place(("LAMP", 1), key=a_key())
        await desk.place(("LAMP", 1), key=a_key("key-2"))
    await desk.place(("LAMP", 1), key=a_key())
    assert await desk.count("orders") == 2


async def test_a_key_that_was_used_after_the_statement_began_creates_no_second_order(desk: Any) -> None:
    """The unique index decides if the lock comes too late: the first commits while the second waits for its row."""
    await desk.stock("LAMP")
    async with desk.database.transaction() as session:
        connection = await session.connection()
        await connection.exec_driver_sql(
            "INSERT INTO orders VALUES (gen_random_uuid(), $1, 'placed', 1, 'EUR', NULL, 1, now(), now(), 'key-1', $2)",
            (desk.customer, a_key().request_hash),
        )
        second = asyncio.create_task(desk.place(("LAMP", 1), key=a_key()))

        async def second_waits() -> Any:
            return await desk.rows(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )

        await eventually(second_waits)
    assert (await second).status == "placed"
    assert await desk.count("orders") == 1
