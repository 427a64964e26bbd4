"""Which delivery is next: planning, the order of an order's events, sending again, and cancellation. Bulk writes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from notifier.webhooks.models import TEST_TYPE

WAS_DISABLED: Final = "the webhook was disabled"
AT_ONCE: Final = 5000
"""Deliveries in each state that are cancelled in the transaction that disables a webhook, at most."""


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """What is needed of a new event to plan its deliveries."""

    id: UUID
    user_id: UUID
    type: str
    order_id: UUID
    order_version: int
    traceparent: str | None


def _in_order(delivery: str, state: str) -> str:
    """Whether the order of `delivery` has a delivery in this state. Each state has its own partial index."""
    return f"""EXISTS (
        SELECT FROM webhook_deliveries AS other WHERE other.webhook_id = {delivery}.webhook_id
        AND other.order_id = {delivery}.order_id AND other.state = '{state}'
    )"""


# Key share waits for a concurrent deletion or change of the webhook: a row of a deleted one would violate the foreign
# key, and one of a webhook that was disabled would be sent.
_PLAN: Final = text(f"""
    WITH events AS (
        SELECT * FROM unnest(
            CAST(:ids AS uuid[]), CAST(:users AS uuid[]), CAST(:types AS text[]), CAST(:orders AS uuid[]),
            CAST(:versions AS int[]), CAST(:traceparents AS text[])
        ) AS events (event_id, user_id, type, order_id, version, traceparent)
    ), of_persons AS (
        SELECT events.*, webhooks.id AS webhook_id, host, enabled
        FROM events JOIN webhooks ON webhooks.user_id = events.user_id AND events.type = ANY (webhooks.event_types)
        WHERE deleted_at IS NULL
        FOR KEY SHARE OF webhooks
    ), of_clients AS (
        SELECT events.*, webhooks.id AS webhook_id, host, enabled
        FROM events JOIN webhooks ON webhooks.client_id IS NOT NULL AND events.type = ANY (webhooks.event_types)
        WHERE deleted_at IS NULL
        FOR KEY SHARE OF webhooks
    ), planned AS (
        SELECT *, row_number() OVER (PARTITION BY webhook_id, order_id ORDER BY version, event_id) AS place
        FROM (SELECT * FROM of_persons UNION ALL SELECT * FROM of_clients) AS subscribed
    )
    INSERT INTO webhook_deliveries
        (webhook_id, event_id, type, host, order_id, order_version, traceparent, state, cause, settled_at)
    SELECT webhook_id, event_id, type, host, order_id, version, traceparent,
        CASE WHEN NOT enabled THEN 'cancelled'
             WHEN place > 1 OR {_in_order("planned", "pending")} OR {_in_order("planned", "waiting")} THEN 'waiting'
             ELSE 'pending' END,
        CASE WHEN NOT enabled THEN '{WAS_DISABLED}' END, CASE WHEN NOT enabled THEN now() END
    FROM planned
    ON CONFLICT (webhook_id, event_id) DO NOTHING
    RETURNING state
""")  # noqa: S608 - the module's own constants


async def plan_deliveries(session: AsyncSession, events: Sequence[PlannedEvent]) -> bool:
    """Plans deliveries to the webhooks that subscribe to the events. Returns whether any is due.

    Those of a disabled webhook are cancelled at once, so that `recover` finds them.
    """
    values = {
        "ids": [event.id for event in events],
        "users": [event.user_id for event in events],
        "types": [event.type for event in events],
        "orders": [event.order_id for event in events],
        "versions": [event.order_version for event in events],
        "traceparents": [event.traceparent for event in events],
    }
    return "pending" in set(await session.scalars(_PLAN, values))


async def release_overlooked(session: AsyncSession, *, limit: int) -> bool:
    """Makes waiting deliveries pending whose turn it is. Returns whether there were any.

    The outcome of a delivery releases the next one of its order, but not one that a concurrent transaction plans. So a
    waiting delivery is checked again, after 1 s and then in growing intervals of up to an hour.
    """
    statement = text(f"""
        WITH due AS (
            SELECT webhook_id, event_id, order_id, order_version, created_at FROM webhook_deliveries
            WHERE state = 'waiting' AND due_at <= now() ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
        ), checked AS (
            SELECT *, EXISTS (SELECT FROM webhooks WHERE id = due.webhook_id AND enabled)
                AND NOT {_in_order("due", "pending")} AND NOT EXISTS (
                SELECT FROM webhook_deliveries AS earlier
                WHERE earlier.webhook_id = due.webhook_id AND earlier.order_id = due.order_id
                AND earlier.state = 'waiting'
                AND (earlier.order_version, earlier.event_id) < (due.order_version, due.event_id)
            ) AS is_next FROM due
        )
        UPDATE webhook_deliveries AS delivery
        SET state = CASE WHEN is_next THEN 'pending' ELSE delivery.state END,
            due_at = now() + CASE WHEN is_next THEN interval '0' ELSE
                least(greatest(now() - checked.created_at, interval '1 s'), interval '1 hour') END
        FROM checked
        WHERE delivery.webhook_id = checked.webhook_id AND delivery.event_id = checked.event_id
        AND delivery.state = 'waiting'
        RETURNING delivery.state
    """)  # noqa: S608 - the module's own constants
    return "pending" in set(await session.scalars(statement, {"limit": limit}))


_NO_TEST: Final = f"type <> '{TEST_TYPE}'"

_AGAIN: Final = """
    UPDATE webhook_deliveries
    SET state = CASE WHEN order_id IS NULL THEN 'pending' ELSE 'waiting' END, due_at = now(), settled_at = NULL,
        cause = NULL, attempts_before = attempts, is_retry = false
    WHERE webhook_id = :webhook_id AND {chosen}
    RETURNING order_id
"""
_POSTPONED: Final = "(state = 'pending' AND due_at > now() + CAST(:lease AS interval))"
"""Pending, and not being sent at the moment: a claim moves `due_at` ahead by the lease."""
_SOME_AGAIN: Final = text(
    _AGAIN.format(
        chosen=f"event_id = ANY (CAST(:event_ids AS uuid[])) AND (state NOT IN ('pending', 'waiting') OR {_POSTPONED})"
    )
)
_ALL_AGAIN: Final = text(
    _AGAIN.format(
        chosen=f"event_id >= :first_id AND type <> :test AND (state IN ('failed', 'cancelled') OR {_POSTPONED})"
    )
)
_OF_ORDERS: Final = "webhook_id = :webhook_id AND order_id = ANY (CAST(:orders AS uuid[]))"
_HOLD: Final = text(f"""
    UPDATE webhook_deliveries SET state = 'waiting', due_at = now() WHERE {_OF_ORDERS} AND {_POSTPONED}
""")  # noqa: S608 - the module's own constants
_BEGIN: Final = text(f"""
    UPDATE webhook_deliveries AS delivery SET state = 'pending', due_at = now()
    FROM (
        SELECT DISTINCT ON (order_id) webhook_id, event_id FROM webhook_deliveries AS next
        WHERE {_OF_ORDERS} AND state = 'waiting' AND NOT {_in_order("next", "pending")}
        ORDER BY order_id, order_version, event_id
    ) AS first
    WHERE delivery.webhook_id = first.webhook_id AND delivery.event_id = first.event_id
""")  # noqa: S608 - the module's own constants


async def send_again(session: AsyncSession, webhook_id: UUID, event_ids: Collection[UUID], *, lease: timedelta) -> None:
    """Sends events again, before later ones of their orders that are not being sent. The webhook must be locked."""
    values = {"webhook_id": webhook_id, "event_ids": list(event_ids), "lease": lease}
    again = (await session.scalars(_SOME_AGAIN, values)).all()
    await _begin(session, webhook_id, again, lease)


async def send_all_again(session: AsyncSession, webhook_id: UUID, *, since: UUID, lease: timedelta) -> int:
    """Sends again all events that failed, were cancelled or wait for a retry, from the id `since` on.

    Returns how many. The webhook must be locked.
    """
    values = {"webhook_id": webhook_id, "first_id": since, "test": TEST_TYPE, "lease": lease}
    again = (await session.scalars(_ALL_AGAIN, values)).all()
    await _begin(session, webhook_id, again, lease)
    return len(again)


async def _begin(session: AsyncSession, webhook_id: UUID, order_ids: Sequence[UUID | None], lease: timedelta) -> None:
    """Starts each of the orders from its first event that is not settled."""
    orders = list({order_id for order_id in order_ids if order_id is not None})
    if orders:
        await session.execute(_HOLD, {"webhook_id": webhook_id, "orders": orders, "lease": lease})
        await session.execute(_BEGIN, {"webhook_id": webhook_id, "orders": orders})


def has_unsettled(webhook: str) -> str:
    """The condition that the webhook of this id has deliveries to cancel. Tests are sent to a disabled one too."""
    left = (
        f"EXISTS (SELECT FROM webhook_deliveries WHERE webhook_id = {webhook} AND state = '{state}' AND {_NO_TEST})"
        for state in ("pending", "waiting")
    )
    return f"({' OR '.join(left)})"


async def cancel_deliveries(
    session: AsyncSession, webhook_ids: Collection[UUID], *, limit: int, skip_locked: bool = False
) -> int:
    """Cancels what is not settled, up to a limit in each state. Returns how many.

    A request that is being sent may still arrive, and is then recorded as sent.
    """
    count = 0
    for state in ("pending", "waiting"):  # each has its own partial index
        statement = text(f"""
            UPDATE webhook_deliveries AS delivery
            SET state = 'cancelled', cause = '{WAS_DISABLED}', settled_at = now()
            FROM (
                SELECT webhook_id, event_id FROM webhook_deliveries
                WHERE webhook_id = ANY (CAST(:webhook_ids AS uuid[])) AND state = '{state}' AND {_NO_TEST}
                LIMIT :limit FOR UPDATE {"SKIP LOCKED" if skip_locked else ""}
            ) AS chunk
            WHERE delivery.webhook_id = chunk.webhook_id AND delivery.event_id = chunk.event_id
            RETURNING 1
        """)  # noqa: S608 - the module's own constants
        rows = await session.scalars(statement, {"webhook_ids": list(webhook_ids), "limit": limit})
        count += len(rows.all())
    return count


async def is_ended(session: AsyncSession, webhook_id: UUID) -> bool:
    """Cancels what a disabled webhook has left. Returns whether that was all."""
    await cancel_deliveries(session, [webhook_id], limit=AT_ONCE)
    statement = text(f"SELECT NOT {has_unsettled('CAST(:webhook_id AS uuid)')}")
    return bool((await session.scalars(statement, {"webhook_id": webhook_id})).one())
