"""What can be done with orders and the catalogue.

Handlers take a session inside the edge's transaction and never commit; placing an order, one statement and its own
transaction, is the exception. `customer_id` restricts a change to that customer's orders; `expected` holds the
versions that the caller has seen, None for any.
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
from common.observability.logs import current_traceparent
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
    """The new order, or the one that this request made before. `lines` are SKUs with quantities.

    Raises `UnknownSku`, `InactiveProduct`, `MixedCurrencies` or `TotalTooLarge`; with a key, `IdempotencyKeyReused` or
    `RequestInFlight`.
    """
    order_id = new_id()
    new = NewOrder(
        id=order_id,
        customer_id=customer_id,
        note=note,
        # The id's own time (RFC 9562 §5.7), so that the order of ids is the order of times.
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
        return _as_placed(new, priced)
    if key is not None:
        # Whatever the request would be told now: what counts is what it was told first.
        async with database.transaction() as session:
            if earlier := await _placed_before(session, customer_id, key):
                return earlier
    raise _refusal(priced)


def _as_placed(new: NewOrder, priced: Sequence[Any]) -> OrderView:
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
    """Why nothing was placed, by the catalogue as the statement saw it."""
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


async def _placed_before(session: AsyncSession, customer_id: UUID, key: IdempotencyKey) -> OrderView | None:
    """The order that this very request made earlier, as it was then; None where the key is new.

    Raises `IdempotencyKeyReused` where another request came with the key.
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
    return await _tell(session, order, lines, OrderConfirmed(**_facts(order)))


async def ship_order(
    session: AsyncSession, order_id: UUID, *, carrier: str, tracking_number: str, expected: Expected = None
) -> OrderView:
    order, lines = await _lock(session, order_id, expected=expected)
    order.ship(utc_now())
    shipped = OrderShipped(**_facts(order), carrier=carrier, tracking_number=tracking_number)
    return await _tell(session, order, lines, shipped)


async def deliver_order(session: AsyncSession, order_id: UUID, *, expected: Expected = None) -> OrderView:
    order, lines = await _lock(session, order_id, expected=expected)
    order.deliver(utc_now())
    return await _tell(session, order, lines, OrderDelivered(**_facts(order)))


async def cancel_order(
    session: AsyncSession,
    order_id: UUID,
    *,
    customer_id: UUID | None,
    reason: str | None,
    expected: Expected = None,
) -> OrderView:
    """As the customer where `customer_id` is given, else as staff, who may for longer."""
    order, lines = await _lock(session, order_id, customer_id=customer_id, expected=expected)
    order.cancel(utc_now(), by_customer=customer_id is not None)
    cancelled_by: Literal["customer", "staff"] = "staff" if customer_id is None else "customer"
    return await _tell(session, order, lines, OrderCancelled(**_facts(order), reason=reason, cancelled_by=cancelled_by))


async def forget_customer(session: AsyncSession, customer_id: UUID) -> None:
    """Orders of an erased person stay, without what anybody wrote in their own words: it may name the person."""
    await queries.erase_texts(session, customer_id)
    await queries.erase_reasons(session, customer_id)


async def put_product(
    session: AsyncSession, sku: str, *, name: str, price: Money, active: bool
) -> tuple[Product, bool]:
    """The product as it is now, and whether it is new. Orders keep the name and price they were placed with."""
    now = utc_now()
    product = await queries.put_product(session, sku, name=name, price=price, active=active, now=now)
    return product, product.created_at == now


async def _lock(
    session: AsyncSession, order_id: UUID, *, customer_id: UUID | None = None, expected: Expected
) -> tuple[Order, Lines]:
    """Raises `NotFound`, or `PreconditionFailed` where the order has changed since the caller saw it."""
    order, lines = await queries.lock_order(session, order_id, customer_id=customer_id)
    if expected is not None and order.version not in expected:
        raise PreconditionFailed("The order has changed.")
    return order, lines


def _facts(order: Order) -> dict[str, Any]:
    return {"order_id": order.id, "customer_id": order.customer_id, "total": order.total}


async def _tell(session: AsyncSession, order: Order, lines: Lines, event: OrderChanged) -> OrderView:
    """The order as it is now, once the change is recorded in its timeline and for the world."""
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
