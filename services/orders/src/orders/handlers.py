"""Use cases of orders and the catalogue.

Handlers take a session and never commit; routes and consumers do. Those that place or change an order are the
exception: their one statement is a transaction of its own. `customer_id` restricts a change to that customer's orders.
`expected` holds the versions that the caller accepts, None for any.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import EVENT_LOG_ERASED_CHANNEL, Database, new_id, notify_after_commit, utc_now
from common.errors import AppError, PreconditionFailed
from common.observability.trace import current_traceparent
from common.web.idempotency import IdempotencyKey, RequestInFlight
from orders import queries
from orders.changing import Change, ChangeOrder, Expected
from orders.errors import InactiveProduct, InvalidTransition, MixedCurrencies, TotalTooLarge, UnknownSku
from orders.events import OrderCancelled, OrderChanged, OrderConfirmed, OrderDelivered, OrderShipped
from orders.models import MAX_TOTAL, Money, OrderStatus, Product
from orders.placing import NewOrder
from orders.queries import OrderView

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


async def confirm_order(
    database: Database, change: ChangeOrder, order_id: UUID, *, expected: Expected = None
) -> OrderView:
    return await _change(database, change, order_id, OrderConfirmed, expected=expected)


async def ship_order(
    database: Database,
    change: ChangeOrder,
    order_id: UUID,
    *,
    carrier: str,
    tracking_number: str,
    expected: Expected = None,
) -> OrderView:
    details = {"carrier": carrier, "tracking_number": tracking_number}
    return await _change(database, change, order_id, OrderShipped, details=details, expected=expected)


async def deliver_order(
    database: Database, change: ChangeOrder, order_id: UUID, *, expected: Expected = None
) -> OrderView:
    return await _change(database, change, order_id, OrderDelivered, expected=expected)


async def cancel_order(
    database: Database,
    change: ChangeOrder,
    order_id: UUID,
    *,
    customer_id: UUID | None,
    reason: str | None,
    expected: Expected = None,
) -> OrderView:
    """Cancels as the customer if `customer_id` is given, else as staff, who may also cancel confirmed orders."""
    details = {"reason": reason, "cancelled_by": "staff" if customer_id is None else "customer"}
    return await _change(
        database, change, order_id, OrderCancelled, details=details, customer_id=customer_id, expected=expected
    )


async def _change(
    database: Database,
    change: ChangeOrder,
    order_id: UUID,
    event: type[OrderChanged],
    *,
    details: Mapping[str, str | None] = MappingProxyType({}),
    customer_id: UUID | None = None,
    expected: Expected,
) -> OrderView:
    """Raises `NotFound`, `PreconditionFailed` if the order's version is not `expected`, or `InvalidTransition`."""
    row = await change(
        Change(
            order_id=order_id,
            customer_id=customer_id,
            event=event,
            details=details,
            expected=expected,
            event_id=new_id(),
            traceparent=current_traceparent(),
        )
    )
    if not row["is_found"]:
        raise queries.no_such_order()
    if not row["is_expected"]:
        raise PreconditionFailed("The order has changed.")
    if not row["is_allowed"]:
        raise InvalidTransition(f"The order is {row['status_before']}.")
    database.notify()
    return queries.order_view(row, json.loads(row["lines"]))


async def forget_customer(session: AsyncSession, customer_id: UUID) -> None:
    """Keeps an erased person's orders, but removes all free text, which may name the person."""
    await queries.erase_texts(session, customer_id)
    await queries.erase_reasons(session, customer_id)
    notify_after_commit(session, EVENT_LOG_ERASED_CHANNEL)


async def put_product(
    session: AsyncSession, sku: str, *, name: str, price: Money, active: bool
) -> tuple[Product, bool]:
    """Returns the product and whether it is new. Orders keep the name and price they were placed with."""
    now = utc_now()
    product = await queries.put_product(session, sku, name=name, price=price, active=active, now=now)
    return product, product.created_at == now
