"""Changes the states of a group of orders with one statement on the driver's connection, without the ORM, for speed.

The statement locks the orders, checks each change against the newest version of its order, and writes orders, timeline
and outbox, in a transaction of its own. It skips a change that is refused.
"""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from common.db.database import utc_now
from common.db.driver_pool import DriverPool
from common.db.group_commit import GroupCommit
from common.observability import history
from common.observability.history import UNKNOWN
from orders.events import OrderChanged
from orders.models import CUSTOMERS_TRANSITIONS, TRANSITIONS

Expected = Collection[int] | None


@dataclass(frozen=True, slots=True)
class Change:
    order_id: UUID
    customer_id: UUID | None
    """The only customer whose order it may be, and who makes the change. None if staff make it."""
    event: type[OrderChanged]
    details: Mapping[str, str | None]
    """The fields that the event has in addition to those of every change."""
    expected: Expected
    """The versions that the caller accepts, None for any."""
    event_id: UUID
    traceparent: str | None

    def values(self) -> tuple[Any, ...]:
        """The columns of the statement's `requested`, in order."""
        expected = None if self.expected is None else f"{{{','.join(map(str, self.expected))}}}"
        change = (self.order_id, self.customer_id, self.event.status, expected)
        return (*change, self.event.type, json.dumps(dict(self.details)), self.event_id, self.traceparent)


ChangeOrder = Callable[[Change], Awaitable[Any]]
"""`change_orders` for one order."""

_RULES: Final = ", ".join(
    f"('{before}', '{after}', {by_customer})"
    for by_customer, transitions in ((False, TRANSITIONS), (True, CUSTOMERS_TRANSITIONS))
    for before, after in transitions
)
# The subquery locks the newest version of one order after the other, by id, so that two statements never wait for each
# other. What follows reads that version from `locked`, since the statement's own snapshot may be older. The outbox's
# ids are drawn while the rows are locked, so that they follow the versions.
_CHANGE: Final = """
WITH requested AS MATERIALIZED (
    SELECT requested.*
    FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[], $9::text[])
        WITH ORDINALITY AS requested (order_id, customer, next_status, expected, type, details, event_id, traceparent,
        number) {limit}
    ORDER BY order_id
), locked AS MATERIALIZED (
    SELECT requested.*, newest.*, expected IS NULL OR version = ANY (expected::integer[]) AS is_expected,
           (status, next_status, customer IS NOT NULL) IN ({rules}) AS is_allowed
    FROM requested CROSS JOIN LATERAL (
        SELECT id, status, version, updated_at FROM orders
        WHERE id = order_id AND (customer IS NULL OR customer_id = customer) FOR UPDATE {skip}
    ) AS newest
), changed AS (
    UPDATE orders SET status = next_status, version = locked.version + 1, updated_at = greatest($1, locked.updated_at)
    FROM locked WHERE orders.id = locked.id AND is_expected AND is_allowed
    RETURNING orders.*, number, type, event_id, traceparent, details::jsonb || jsonb_build_object('order_id', orders.id,
        'customer_id', customer_id, 'total', jsonb_build_object('amount', total_amount, 'currency', currency)) AS data
), new_entries AS (
    INSERT INTO order_timeline (order_id, version, type, occurred_at, data)
    SELECT id, version, type, updated_at, data FROM changed
), new_events AS (
    INSERT INTO outbox (event_id, type, subject, version, occurred_at, data, traceparent)
    SELECT event_id, type, id::text, version, updated_at, data, traceparent FROM changed
)
SELECT is_expected, is_allowed, locked.status AS status_before, locked.id IS NOT NULL AS is_found,
    locked.id IS NULL AND EXISTS (
        SELECT FROM orders
        WHERE id = requested.order_id AND (requested.customer IS NULL OR customer_id = requested.customer)) AS is_busy,
    changed.id, changed.customer_id, changed.status, total_amount, currency, note, changed.version, created_at,
    changed.updated_at, (
        SELECT json_agg(json_build_object('sku', sku, 'name', name, 'quantity', quantity, 'unit_price',
            json_build_object('amount', unit_amount, 'currency', currency)) ORDER BY position)
        FROM order_lines WHERE order_lines.order_id = changed.id) AS lines
FROM requested LEFT JOIN locked USING (number) LEFT JOIN changed USING (number) ORDER BY number
"""
SKIP: Final = _CHANGE.format(rules=_RULES, limit="", skip="SKIP LOCKED")
"""Skips an order that another transaction has locked."""
WAIT: Final = _CHANGE.format(rules=_RULES, limit=", set_config('lock_timeout', '2s', true)", skip="")
"""Waits for it up to 2 s."""


async def change_orders(driver: DriverPool, statement: str, changes: Sequence[Change]) -> Sequence[Any]:
    """Returns a row for each change: `is_busy` if `SKIP` skipped the order; else `is_found`, `is_expected` and
    `is_allowed`, all true if it was changed, and then the columns of the changed order.

    The changes are of different orders.
    """
    history.note("recording", ((change.event_id, change.order_id, UNKNOWN) for change in changes))
    columns = zip(*(change.values() for change in changes), strict=True)
    return await driver.fetch(statement, utc_now(), *columns)


def group_changes(driver: DriverPool, *, timeout: float) -> ChangeOrder:
    """`change_orders` for one order: concurrent calls share a statement.

    A change of an order that another transaction has locked waits in a second group, and so delays no other order's.
    Either group fails it after `timeout` seconds. A lock that is held for longer than `WAIT` waits refuses the change,
    which is then not made.
    """
    skip, wait = (
        GroupCommit(partial(change_orders, driver, statement), size=32, timeout=timeout, key=attrgetter("order_id"))
        for statement in (SKIP, WAIT)
    )

    async def change(one: Change) -> Any:
        outcome = await skip(one)
        return await wait(one) if outcome["is_busy"] else outcome

    return change
