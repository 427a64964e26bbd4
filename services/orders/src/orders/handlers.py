"""Use cases of orders and the catalogue.

Handlers take a session, record events and never commit; routes and consumers do. `place_order` is the exception: its
one statement is a transaction of its own. `customer_id` restricts a change to that customer's orders. `expected` holds
the versions that the caller accepts, None for any.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database, new_id, utc_now
from common.errors import AppError, PreconditionFailed
from common.messaging import outbox
from common.observability.trace import current_traceparent
from common.web.idempotency import IdempotencyKey, RequestInFlight
from orders import queries
from orders.errors import InactiveProduct, MixedCurrencies, TotalTooLarge, UnknownSku
from orders.events import OrderCancelled, OrderChanged, OrderConfirmed, OrderDelivered, OrderShipped
from orders.models import MAX_TOTAL, Money, Order, OrderStatus, Product, TimelineEntry
from orders.placing import NewOrder
from orders.queries import OrderView

Expected = Collection[int] | None
Lines = Sequence[dict[str, Any]]
InsertOrder = Callable[[NewOrder], Awaitable[Sequence[Any]]]
"""`placing.insert_orders` for one order."""


async def place_order(
    database: Database,
    insert: InsertOrder,
    *,
    customer_id: UUID,
    lines: Sequence[tuple[str, int]],
    note: str | None = None,
    key: IdempotencyKey | None = None,
) -> OrderView:
    """Returns the new order, or the one that an earlier request with the same key placed. `lines` are SKUs with
    quantities.

    Raises `UnknownSku`, `InactiveProduct`, `MixedCurrencies` or `TotalTooLarge`; with a key, `IdempotencyKeyReused` or
    `RequestInFlight`.
    """
    order_id = new_id()
    new = NewOrder(
        id=order_id,
        customer_id=customer_id,
        note=note,
        # The timestamp in the id (RFC 9562 §5.7), so that ids and times sort alike.
        placed_at=datetime.fromtimestamp((order_id.int >> 80) / 1000, UTC),
        lines=lines,
        idempotency_key=key.value if key else None,
        request_hash=key.request_hash if key else None,
        event_id=new_id(),
        traceparent=current_traceparent(),
    )
    priced = await insert(new)
    if priced[0]["placed"]:
        database.notify()
        return _placed_order(new, priced)
    if key is not None:
        # A repeated request gets its first response, even if it would be refused now.
        async with database.transaction() as session:
            if earlier := await _earlier_order(session, customer_id, key):
                return earlier
    raise _refusal(priced)


def _placed_order(new: NewOrder, priced: Sequence[Any]) -> OrderView:
    currency = priced[0]["price_currency"]
    return OrderView(
        id=new.id,
        customer_id=new.customer_id,
        status=OrderStatus.PLACED,
        lines=[
            {
                "sku": line["sku"],
                "name": line["name"],
                "quantity": line["quantity"],
                "unit_price": {"amount": line["price_amount"], "currency": currency},
            }
            for line in priced
        ],
        total=Money(sum(line["quantity"] * line["price_amount"] for line in priced), currency),
        note=new.note,
        version=1,
        created_at=new.placed_at,
        updated_at=new.placed_at,
    )


def _refusal(priced: Sequence[Any]) -> AppError:
    """Why the statement placed no order, from the catalogue's values that it returned."""
    if unknown := [position for position, row in enumerate(priced) if row["name"] is None]:
        return UnknownSku(unknown)
    if inactive := [position for position, row in enumerate(priced) if not row["active"]]:
        return InactiveProduct(inactive)
    currency = priced[0]["price_currency"]
    if mixed := [position for position, row in enumerate(priced) if row["price_currency"] != currency]:
        return MixedCurrencies(mixed)
    if sum(row["quantity"] * row["price_amount"] for row in priced) > MAX_TOTAL:
        return TotalTooLarge()
    return RequestInFlight()


async def _earlier_order(session: AsyncSession, customer_id: UUID, key: IdempotencyKey) -> OrderView | None:
    """The order that an earlier request placed with the key, as it was then, or None for a new key.

    Raises `IdempotencyKeyReused` if that was another request.
    """
    found = await queries.order_of_key(session, customer_id, key.value)
    if found is None:
        return None
    order, request_hash = found
    key.check(request_hash)
    return replace(order, status=OrderStatus.PLACED, version=1, updated_at=order.created_at)


async def confirm_order(session: AsyncSession, order_id: UUID, *, expected: Expected = None) -> OrderView:
    order, lines = await _lock(session, order_id, expected=expected)
    order.confirm(utc_now())
    return await _record_event(session, order, lines, OrderConfirmed(**_event_fields(order)))


async def ship_order(
    session: AsyncSession, order_id: UUID, *, carrier: str, tracking_number: str, expected: Expected = None
) -> OrderView:
    order, lines = await _lock(session, order_id, expected=expected)
    order.ship(utc_now())
    shipped = OrderShipped(**_event_fields(order), carrier=carrier, tracking_number=tracking_number)
    return await _record_event(session, order, lines, shipped)


async def deliver_order(session: AsyncSession, order_id: UUID, *, expected: Expected = None) -> OrderView:
    order, lines = await _lock(session, order_id, expected=expected)
    order.deliver(utc_now())
    return await _record_event(session, order, lines, OrderDelivered(**_event_fields(order)))


async def cancel_order(
    session: AsyncSession,
    order_id: UUID,
    *,
    customer_id: UUID | None,
    reason: str | None,
    expected: Expected = None,
) -> OrderView:
    """Cancels as the customer if `customer_id` is given, else as staff, who may also cancel confirmed orders."""
    order, lines = await _lock(session, order_id, customer_id=customer_id, expected=expected)
    order.cancel(utc_now(), by_customer=customer_id is not None)
    cancelled_by: Literal["customer", "staff"] = "staff" if customer_id is None else "customer"
    return await _record_event(
        session, order, lines, OrderCancelled(**_event_fields(order), reason=reason, cancelled_by=cancelled_by)
    )


async def forget_customer(session: AsyncSession, customer_id: UUID) -> None:
    """Keeps an erased person's orders, but removes all free text, which may name the person."""
    await queries.erase_texts(session, customer_id)
    await queries.erase_reasons(session, customer_id)


async def put_product(
    session: AsyncSession, sku: str, *, name: str, price: Money, active: bool
) -> tuple[Product, bool]:
    """Returns the product and whether it is new. Orders keep the name and price they were placed with."""
    now = utc_now()
    product = await queries.put_product(session, sku, name=name, price=price, active=active, now=now)
    return product, product.created_at == now


async def _lock(
    session: AsyncSession, order_id: UUID, *, customer_id: UUID | None = None, expected: Expected
) -> tuple[Order, Lines]:
    """Raises `NotFound`, or `PreconditionFailed` if the order's version is not one of `expected`."""
    order, lines = await queries.lock_order(session, order_id, customer_id=customer_id)
    if expected is not None and order.version not in expected:
        raise PreconditionFailed("The order has changed.")
    return order, lines


def _event_fields(order: Order) -> dict[str, Any]:
    return {"order_id": order.id, "customer_id": order.customer_id, "total": order.total}


async def _record_event(session: AsyncSession, order: Order, lines: Lines, event: OrderChanged) -> OrderView:
    """Writes the event to the timeline and the outbox, and returns the changed order."""
    session.add(
        TimelineEntry(
            order_id=order.id,
            version=order.version,
            type=event.type,
            occurred_at=order.updated_at,
            data=event.model_dump(mode="json"),
        )
    )
    await outbox.record(session, event, subject=order.id, version=order.version, occurred_at=order.updated_at)
    return OrderView.of(order, lines)
