"""Which events are posted to which webhooks."""

import asyncio

from common.db.database import new_id
from common.testing.plugin import eventually
from notifier.settings import Settings
from notifier.webhooks.ending import end_webhooks

from .delivering import delivering
from .receiver import Receiver
from .webhook_waiting import settled
from .world import World


async def test_each_webhook_receives_only_the_types_it_subscribes_to(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    user_id = new_id()
    _, first = await world.webhook(user_id, receiver.url, event_types=["orders.order.cancelled.v1"])
    _, second = await world.webhook(user_id, receiver.url + "&second", event_types=["orders.order.cancelled.v1"])
    async with delivering(webhook_settings):
        await world.order("placed", user_id)
        await world.order("cancelled", user_id)
        await eventually(lambda: settled(world, "sent", "sent"))
    for request in receiver.requests:
        event = request.verified(second if "second" in request.target else first)
        assert event["type"] == "orders.order.cancelled.v1"
        assert event["data"]["cancelled_by"] == "staff"


async def test_a_second_event_of_the_same_state_is_not_posted(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    order_id = await world.order("placed", user_id)
    await world.order("placed", user_id, order_id)
    assert await world.post_states() == ["pending"]


async def test_a_deleted_webhook_receives_nothing(world: World, webhook_settings: Settings, receiver: Receiver) -> None:
    user_id = new_id()
    webhook_id, _ = await world.webhook(user_id, receiver.url)
    await world.order("placed", user_id)
    await world.rows("DELETE FROM webhooks WHERE id = :id RETURNING id", id=webhook_id)
    await world.webhook(user_id, receiver.url + "&second")
    async with delivering(webhook_settings):
        await world.order("placed", user_id)
        await eventually(lambda: settled(world, "sent"))
    assert ["second" in request.target for request in receiver.requests] == [True]


async def test_an_event_is_processed_though_a_webhook_is_deleted_at_the_same_time(world: World) -> None:
    user_id = new_id()
    await world.webhook(user_id)
    async with world.database.transaction() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("DELETE FROM webhooks")
        planning = asyncio.create_task(world.order("placed", user_id))
        await eventually(lambda: _is_blocked(world))
    await planning
    assert sorted(await world.kinds(user_id)) == ["order_placed", "webhook_added"]
    assert await world.posts() == []


async def _is_blocked(world: World) -> bool:
    return bool(await world.rows("SELECT 1 FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"))


async def test_the_webhooks_of_an_erased_person_are_deleted(world: World) -> None:
    user_id, other = new_id(), new_id()
    for person in (user_id, other):
        await world.webhook(person)
        await world.order("placed", person)
    await world.event("users.user.erased.v1", version=2, user_id=str(user_id))
    await end_webhooks(world.database)
    assert [row["user_id"] for row in await world.rows("SELECT user_id FROM webhooks")] == [other]
    assert await world.post_states() == ["pending"]
    await world.order("shipped", user_id)
    assert await world.post_states() == ["pending"]


async def test_a_client_receives_the_events_of_an_erased_persons_orders_without_their_words(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    """Those that are not sent yet when the person is erased, and later ones. Nothing else is kept of the person."""
    await world.webhook("client-1", receiver.url)
    user_id = new_id()
    await world.registered(user_id)
    await world.webhook(user_id, receiver.url + "&own")
    first = await world.order("placed", user_id)
    await world.order("cancelled", user_id, first, version=2, reason="I am Ann", cancelled_by="customer")
    second = await world.order("placed", user_id)
    await world.event("users.user.erased.v1", version=2, user_id=str(user_id))
    await world.order("cancelled", user_id, second, version=2, reason="Ann is me", cancelled_by="customer")
    assert await world.deliveries() == []
    assert "Ann" not in repr(await world.rows("SELECT * FROM notifications"))
    assert set(await world.kinds(user_id)) == {"order_placed", "order_cancelled"}
    async with delivering(webhook_settings):
        await eventually(lambda: settled(world, *["sent"] * 4))
    assert all("own" not in request.target for request in receiver.requests)
    events = [request.event for request in receiver.requests]
    assert {event["data"]["customer_id"] for event in events} == {str(user_id)}
    cancelled = [event["data"] for event in events if "reason" in event["data"]]
    assert [(data["reason"], data["cancelled_by"]) for data in cancelled] == [(None, "customer")] * 2


async def test_nothing_is_kept_of_an_erased_person_whose_events_no_client_receives(world: World) -> None:
    user_id = new_id()
    await world.webhook("client-1", event_types=["orders.order.placed.v1"])
    order_id = await world.order("placed", user_id)
    await world.execute("UPDATE webhook_deliveries SET state = 'sent', settled_at = now()")
    await world.event("users.user.erased.v1", version=2, user_id=str(user_id))
    await world.order("shipped", user_id, order_id, version=2)
    assert await world.kinds(user_id) == []
