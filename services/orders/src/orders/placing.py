"""Placing an order: one statement on the driver's connection, past the ORM for speed.

It prices the lines from the catalogue and writes order, lines, timeline and outbox, or nothing. It is a transaction of
its own. RATIO
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from common.database import new_id
from common.driver import DriverPool
from common.events import rfc3339
from common.idempotency import IdempotencyKey
from common.logs import current_traceparent
from orders.events import OrderPlaced
from orders.models import MAX_TOTAL, OrderStatus

# A key that another transaction is working on is not waited for: the try-lock says so, and ends with its transaction.
_PLACE: Final = f"""
WITH priced AS (
    SELECT line.position, line.sku, line.quantity, product.name, product.price_amount, product.price_currency,
           product.active
    FROM unnest($6::text[], $7::integer[]) WITH ORDINALITY AS line (sku, quantity, position)
    LEFT JOIN products AS product USING (sku)
), summed AS (
    SELECT sum(quantity * price_amount)::bigint AS total, min(price_currency) AS currency,
           jsonb_agg(jsonb_build_object('sku', sku, 'name', name, 'quantity', quantity, 'unit_price',
               jsonb_build_object('amount', price_amount, 'currency', price_currency)) ORDER BY position) AS lines
    FROM priced
    HAVING bool_and(active IS TRUE) AND min(price_currency) = max(price_currency)
       AND sum(quantity * price_amount) <= {MAX_TOTAL}
), placed AS (
    INSERT INTO orders (id, customer_id, status, total_amount, currency, note, version, created_at, updated_at,
                        idempotency_key, request_hash)
    SELECT $1, $2, '{OrderStatus.PLACED}', total, currency, $3, 1, $4, $4, $8, $9 FROM summed
    WHERE $8::text IS NULL OR pg_try_advisory_xact_lock(hashtextextended($2::uuid::text || $8, 0))
    ON CONFLICT (customer_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING id
), told AS (
    SELECT jsonb_build_object('order_id', id, 'customer_id', $2::uuid, 'lines', lines,
               'total', jsonb_build_object('amount', total, 'currency', currency), 'placed_at', $5::text) AS data
    FROM placed CROSS JOIN summed
), new_lines AS (
    INSERT INTO order_lines (order_id, position, sku, name, quantity, unit_amount)
    SELECT id, position, sku, name, quantity, price_amount FROM placed CROSS JOIN priced
), new_entry AS (
    INSERT INTO order_timeline (order_id, version, type, occurred_at, data)
    SELECT $1, 1, '{OrderPlaced.type}', $4, data FROM told
), new_event AS (
    INSERT INTO outbox (event_id, type, subject, version, occurred_at, data, traceparent)
    SELECT $10::uuid, '{OrderPlaced.type}', $1::uuid::text, 1, $4, data, $11 FROM told
)
SELECT sku, quantity, name, price_amount, price_currency, active, EXISTS (SELECT FROM placed) AS placed
FROM priced ORDER BY position
"""  # noqa: S608 - what is put in are constants


async def insert_order(
    driver: DriverPool,
    *,
    order_id: UUID,
    customer_id: UUID,
    lines: Sequence[tuple[str, int]],
    note: str | None,
    key: IdempotencyKey | None,
    now: datetime,
) -> Sequence[Any]:
    """The lines as the catalogue has them, in their order: `sku`, `quantity`, `name`, `price_amount`, `price_currency`,
    `active` (null where there is no such product), each with whether the order was `placed`.

    It was not where a line can't be sold, currencies differ, the total is too large, or the key is not free.
    """
    rows: Sequence[Any] = await driver.fetch(
        _PLACE,
        order_id,
        customer_id,
        note,
        now,
        rfc3339(now),
        [sku for sku, _ in lines],
        [quantity for _, quantity in lines],
        key.value if key else None,
        key.request_hash if key else None,
        new_id(),
        current_traceparent(),
    )
    return rows
