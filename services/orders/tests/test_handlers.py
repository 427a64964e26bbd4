"""Changes of orders after they were placed, and of the catalogue."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from common.db.database import new_id
from common.errors import NotFound, PreconditionFailed
from orders import handlers, queries
from orders.errors import InvalidTransition
from orders.models import Money

PATHS = {
    "delivered": ["confirm", "ship", "deliver"],
    "cancelled from placed": ["cancel"],
    "cancelled from confirmed": ["confirm", "cancel"],
}
TYPES = {
    "confirm": "orders.order.confirmed.v1",
    "ship": "orders.order.shipped.v1",
    "deliver": "orders.order.delivered.v1",
    "cancel": "orders.order.cancelled.v1",
}


@pytest.fixture
async def placed(desk: Any) -> Any:
    await desk.stock("LAMP")
    return await desk.place(("LAMP", 2))


@pytest.mark.parametrize("path", PATHS)
async def test_each_change_is_one_event_with_the_next_version(desk: Any, placed: Any, path: str) -> None:
    for step in PATHS[path]:
        await desk.do(step, placed.id)
    expected = [(1, "orders.order.placed.v1")]
    expected += [(version, TYPES[step]) for version, step in enumerate(PATHS[path], start=2)]
    for table in (
        "outbox WHERE subject = :id ORDER BY id",
        "order_timeline WHERE order_id::text = :id ORDER BY version",
    ):
        rows = await desk.rows(f"SELECT version, type FROM {table}", id=str(placed.id))  # noqa: S608
        assert [(row["version"], row["type"]) for row in rows] == expected


async def test_a_change_is_seen_with_its_state_version_and_time(desk: Any, placed: Any) -> None:
    confirmed = await desk.do("confirm", placed.id)
    assert (confirmed.status, confirmed.version) == ("confirmed", 2)
    assert confirmed.updated_at > confirmed.created_at == placed.created_at
    assert await queries.read_order(desk.driver, placed.id) == confirmed


async def test_events_hold_the_fields_of_their_state(desk: Any, placed: Any) -> None:
    await desk.do("confirm", placed.id)
    await desk.do("ship", placed.id, carrier="Owl Post", tracking_number="H-1")
    facts = {
        "order_id": str(placed.id),
        "customer_id": str(desk.customer),
        "total": {"amount": 9800, "currency": "EUR"},
    }
    events = await desk.rows("SELECT data FROM outbox ORDER BY id")
    assert [event["data"] for event in events[1:]] == [
        facts,
        {**facts, "carrier": "Owl Post", "tracking_number": "H-1"},
    ]


@pytest.mark.parametrize(("as_customer", "by"), [(True, "customer"), (False, "staff")])
async def test_a_cancellation_says_why_and_by_whom(desk: Any, placed: Any, as_customer: bool, by: str) -> None:
    customer = desk.customer if as_customer else None
    await desk.do("cancel", placed.id, customer_id=customer, reason="Too dear")
    [event] = await desk.rows("SELECT data FROM outbox WHERE version = 2")
    assert (event["data"]["reason"], event["data"]["cancelled_by"]) == ("Too dear", by)


async def test_a_refused_change_writes_nothing(desk: Any, placed: Any) -> None:
    with pytest.raises(InvalidTransition):
        await desk.do("ship", placed.id)
    assert await desk.count("outbox") == await desk.count("order_timeline") == 1
    assert await queries.read_order(desk.driver, placed.id) == placed


async def test_customers_change_their_own_orders_only(desk: Any, placed: Any) -> None:
    with pytest.raises(NotFound):
        await desk.do("cancel", placed.id, customer_id=new_id())
    with pytest.raises(NotFound):
        await desk.do("confirm", new_id())


async def test_a_caller_that_has_not_seen_the_newest_version_changes_nothing(desk: Any, placed: Any) -> None:
    await desk.do("confirm", placed.id, expected={1, 7})
    with pytest.raises(PreconditionFailed):
        await desk.do("ship", placed.id, expected={1})
    await desk.do("ship", placed.id, expected={2})


async def test_of_two_confirmations_at_once_one_is_too_late(desk: Any, placed: Any) -> None:
    outcomes = await asyncio.gather(*(desk.do("confirm", placed.id) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(outcome, InvalidTransition) for outcome in outcomes) == 4
    versions = await desk.rows("SELECT version FROM outbox ORDER BY id")
    assert [row["version"] for row in versions] == [1, 2]


async def test_the_second_of_two_changes_sees_what_the_first_one_committed(desk: Any, placed: Any) -> None:
    async with desk.database.transaction() as faster:
        await faster.execute(text("UPDATE orders SET status = 'confirmed', version = 2"))
        slower = asyncio.create_task(desk.do("cancel", placed.id))
        waiting = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with asyncio.timeout(10):
            while not await desk.count(waiting):
                assert not slower.done()
    cancelled = await slower
    assert (cancelled.status, cancelled.version, cancelled.lines) == ("cancelled", 3, placed.lines)
    assert [row["version"] for row in await desk.rows("SELECT version FROM outbox ORDER BY id")] == [1, 3]


async def test_a_cancellation_and_a_confirmation_at_once_leave_versions_without_a_gap(desk: Any, placed: Any) -> None:
    await asyncio.gather(
        desk.do("confirm", placed.id),
        desk.do("cancel", placed.id),
        desk.do("cancel", placed.id, customer_id=desk.customer),
        return_exceptions=True,
    )
    events = await desk.rows("SELECT version, type FROM outbox ORDER BY id")
    assert [event["version"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == TYPES["cancel"]


async def test_a_product_is_created_once_and_then_changed(desk: Any) -> None:
    answers = []
    for name, amount in (("Lamp", 1), ("Better lamp", 2)):
        async with desk.database.transaction() as session:
            price = Money(amount, "EUR")
            answers.append(await handlers.put_product(session, "LAMP", name=name, price=price, active=True))
    (first, is_new), (second, is_new_again) = answers
    assert (is_new, is_new_again) == (True, False)
    assert (second.name, second.price, second.created_at) == ("Better lamp", Money(2, "EUR"), first.created_at)


async def test_parallel_puts_of_one_product_create_it_once(desk: Any) -> None:
    await asyncio.gather(*(desk.stock("LAMP", amount) for amount in range(10)))
    assert await desk.count("products") == 1


IMPOSSIBLE = [
    "UPDATE orders SET status = 'lost'",
    "UPDATE orders SET status = 'shipped'",
    "UPDATE orders SET version = 0",
    "UPDATE orders SET total_amount = -1",
    "UPDATE orders SET total_amount = 9007199254740992",
    "UPDATE orders SET currency = 'euro'",
    "UPDATE orders SET idempotency_key = 'x'",
    "UPDATE orders SET note = repeat('x', 1001)",
    "DELETE FROM orders",
    "UPDATE order_lines SET quantity = 0",
    "UPDATE order_lines SET unit_amount = -1",
    "UPDATE order_timeline SET order_id = gen_random_uuid()",
    "UPDATE products SET sku = 'a b'",
    "UPDATE products SET price_amount = -1",
    "UPDATE products SET price_currency = 'EURO'",
    "UPDATE products SET name = ''",
]


async def test_the_database_refuses_an_invalid_state(desk: Any, placed: Any, subtests: pytest.Subtests) -> None:
    for damage in IMPOSSIBLE:
        with subtests.test(damage), pytest.raises(IntegrityError):
            await desk.rows(damage)
