"""Retention of notifications and deliveries."""

from datetime import datetime, timedelta, tzinfo
from uuid import UUID

import pytest

from common.db import database as database_module
from common.db.database import Database, first_id_at, new_id, utc_now
from notifier.retention import NOTIFICATION_RETENTION, WEBHOOK_DELIVERY_RETENTION, run_cleanup

from .world import World, order_data


class Ahead(datetime):
    """The clock of a host that is 40 days ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Ahead":
        return super().now(tz) + timedelta(days=40)


async def placed(world: World, user_id: UUID, *, ago: timedelta) -> UUID:
    """Processes the event of an order placed that long ago. Returns the order's id."""
    moment, order_id = utc_now() - ago, new_id()
    event_id = await world.event(
        "orders.order.placed.v1", event_id=first_id_at(moment), **order_data("placed", user_id, order_id)
    )
    await world.rows("UPDATE notifications SET created_at = :at WHERE id = :id RETURNING id", at=moment, id=event_id)
    return order_id


async def test_expired_notifications_are_deleted_with_their_mails(world: World, database: Database) -> None:
    user_id = new_id()
    await world.registered(user_id)
    await placed(world, user_id, ago=NOTIFICATION_RETENTION + timedelta(minutes=1))
    young = await placed(world, user_id, ago=NOTIFICATION_RETENTION - timedelta(minutes=1))
    newest = await placed(world, user_id, ago=timedelta())
    await run_cleanup(database)
    left = {row["order_id"] for row in await world.rows("SELECT order_id FROM notifications")}
    assert left == {young, newest}
    assert len(await world.deliveries()) == 2


async def test_a_run_deletes_a_days_rows_by_the_servers_clock_and_none_without_a_newer_one(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host's clock that is 40 days ahead, or a server's, would cost 40 days of notifications at once."""
    user_id = new_id()
    await world.registered(user_id)

    async def left() -> int:
        return len(await world.rows("SELECT 1 FROM notifications"))

    for days in (3, 2, 1):
        await placed(world, user_id, ago=NOTIFICATION_RETENTION + timedelta(days=days))
    await run_cleanup(database)
    assert await left() == 3
    await placed(world, user_id, ago=timedelta())
    await placed(world, user_id, ago=NOTIFICATION_RETENTION - timedelta(days=20))
    monkeypatch.setattr(database_module, "datetime", Ahead)
    counts = []
    for _ in range(4):
        await run_cleanup(database)
        counts.append(await left())
    assert counts == [4, 3, 2, 2]


async def test_webhook_deliveries_are_deleted_some_time_after_they_were_settled(
    world: World, database: Database
) -> None:
    user_id = new_id()
    await world.webhook(user_id)
    for _ in range(4):
        await world.order("placed", user_id)
    old, young, new, pending = await world.posts()
    for post, age in (
        (old, timedelta(minutes=1)),
        (young, timedelta(minutes=-1)),
        (new, -WEBHOOK_DELIVERY_RETENTION),
    ):
        await world.rows(
            "UPDATE webhook_deliveries SET state = 'sent', settled_at = :at WHERE event_id = :id RETURNING 1",
            at=utc_now() - WEBHOOK_DELIVERY_RETENTION - age,
            id=post["event_id"],
        )
    await run_cleanup(database)
    assert {post["event_id"] for post in await world.posts()} == {post["event_id"] for post in (young, new, pending)}


async def test_a_wrong_clock_costs_a_day_of_notifications_at_a_time(world: World, database: Database) -> None:
    """To PostgreSQL with a clock that is half a year ahead, those of the last days look like these."""
    user_id = new_id()
    orders = [await placed(world, user_id, ago=NOTIFICATION_RETENTION + timedelta(days=age)) for age in (5, 4, 3, 2)]
    newest = await placed(world, user_id, ago=timedelta())
    recent = first_id_at(utc_now() - timedelta(days=400))  # by the time in its id it is the oldest
    await world.event("orders.order.placed.v1", event_id=recent, **order_data("placed", user_id, new_id()))
    for left in (3, 2, 1, 0, 0):
        await run_cleanup(database)
        ids = {
            row["order_id"] for row in await world.rows("SELECT order_id FROM notifications WHERE id <> :id", id=recent)
        }
        assert ids == {newest, *orders[len(orders) - left :]}
    assert len(await world.rows("SELECT id FROM notifications")) == 2


def test_the_first_id_at_a_moment_separates_earlier_ids_from_later_ones() -> None:
    earlier = new_id()
    assert earlier < first_id_at(utc_now() + timedelta(seconds=1))
    assert earlier > first_id_at(utc_now() - timedelta(seconds=1))
    assert first_id_at(utc_now()).version == 7
