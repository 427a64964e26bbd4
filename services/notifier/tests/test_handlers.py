"""The effects of events on contacts, notifications and deliveries."""

import asyncio
from typing import Any, get_args

import asyncpg
import pytest

from common.db.database import Database, new_id
from common.messaging.event_handlers import Received
from common.testing.plugin import eventually
from notifier import queries
from notifier.consumers import handlers
from notifier.models import LinkKind

from .world import World, order_data, received

STATES = ["placed", "confirmed", "shipped", "delivered", "cancelled"]


async def test_every_state_of_an_order_gets_one_notification_and_one_mail(world: World) -> None:
    user_id, order_id = new_id(), new_id()
    await world.registered(user_id)
    for state in STATES:
        await world.order(state, user_id, order_id)
    assert await world.kinds(user_id) == sorted(f"order_{state}" for state in STATES)
    assert await world.states() == ["pending"] * len(STATES)


async def test_a_state_processed_before_an_earlier_one_suppresses_neither(world: World) -> None:
    user_id, order_id = new_id(), new_id()
    await world.registered(user_id)
    for state in ("delivered", "shipped", "placed", "confirmed"):
        await world.order(state, user_id, order_id)
    assert await world.kinds(user_id) == ["order_confirmed", "order_delivered", "order_placed", "order_shipped"]


async def test_events_of_many_people_have_the_same_effect_in_a_batch_as_one_by_one(
    world: World, database: Database
) -> None:
    known, unknown, silent, erased = new_id(), new_id(), new_id(), new_id()
    for user_id in (known, silent, erased):
        await world.registered(user_id)
    await world.rows("UPDATE contacts SET order_updates = false WHERE user_id = :id RETURNING 1", id=silent)
    await world.event("users.user.erased.v1", version=2, user_id=str(erased))
    order_id = new_id()
    people = [known, unknown, silent, erased]
    events = [received("orders.order.placed.v1", **order_data("placed", user, new_id())) for user in people]
    events += [received(f"orders.order.{state}.v1", **order_data(state, known, order_id)) for state in STATES * 2]
    async with database.transaction() as session:
        await handlers.handle(session, *events)
    assert await world.kinds(known) == sorted(["order_placed", *(f"order_{state}" for state in STATES)])
    assert [await world.kinds(user_id) for user_id in (unknown, silent, erased)] == [
        ["order_placed"],
        ["order_placed"],
        [],
    ]
    assert sorted(await world.states()) == ["pending"] * 7 + ["waiting"]


async def test_a_second_event_of_the_same_state_changes_nothing(world: World) -> None:
    user_id = new_id()
    await world.registered(user_id)
    order_id = await world.order("placed", user_id)
    await world.order("placed", user_id, order_id)
    assert await world.kinds(user_id) == ["order_placed"]
    assert await world.states() == ["pending"]


async def test_a_notification_waits_for_its_contact_and_is_released_by_it(world: World) -> None:
    user_id, stranger = new_id(), new_id()
    await world.order("placed", user_id)
    await world.order("placed", stranger)
    assert await world.kinds(user_id) == ["order_placed"]
    assert await world.states() == ["waiting", "waiting"]
    await world.registered(user_id)
    assert sorted(await world.states()) == ["pending", "waiting"]


async def test_a_notification_and_its_contact_processed_at_once_always_meet(world: World) -> None:
    people = [new_id() for _ in range(40)]
    for first in range(0, len(people), 4):
        both = [
            work
            for user_id in people[first : first + 4]
            for work in (world.order("placed", user_id), world.registered(user_id), world.order("shipped", user_id))
        ]
        await asyncio.gather(*both)
    await recheck_waiting(world)
    assert await world.states() == ["pending"] * 80


async def recheck_waiting(world: World) -> None:
    """Does what every deliverer does each second."""
    async with world.database.transaction() as session:
        await queries.release_overlooked(session, limit=100)


@pytest.mark.parametrize("order_first", [True, False])
async def test_a_notification_and_its_contact_in_two_open_transactions_meet_without_waiting_for_each_other(
    world: World, database: Database, *, order_first: bool
) -> None:
    user_id = new_id()
    placed = received("orders.order.placed.v1", **order_data("placed", user_id, new_id()))
    profile: dict[str, Any] = {"user_id": str(user_id), "name": "Ann", "email": "ann@example.com"}
    registered = received("users.user.registered.v1", **profile, send_welcome=False)
    earlier, later = (placed, registered) if order_first else (registered, placed)
    async with database.transaction() as session:
        await handlers.handle(session, earlier)
        await asyncio.wait_for(_handle(database, later), 5)
    assert await world.states() == ["waiting"]
    await recheck_waiting(world)
    assert await world.states() == ["pending"]


async def test_a_long_waiting_delivery_is_rarely_rechecked_and_still_released_by_its_contact(world: World) -> None:
    user_id = new_id()
    await world.order("placed", user_id)
    await world.rows("UPDATE deliveries SET created_at = now() - interval '1 hour' RETURNING id")
    await recheck_waiting(world)
    [row] = await world.rows("SELECT extract(epoch FROM due_at - now())::float8 AS seconds FROM deliveries")
    assert 3500 < row["seconds"] < 3700
    await world.registered(user_id)
    assert await world.states() == ["pending"]


async def test_a_notification_that_overlapped_an_erasure_is_deleted_too(world: World, database: Database) -> None:
    user_id = new_id()
    placed = received("orders.order.placed.v1", **order_data("placed", user_id, new_id()))
    async with database.transaction() as session:
        await handlers.handle(session, placed)
        await world.event("users.user.erased.v1", version=2, user_id=str(user_id))
    assert await world.kinds(user_id) == ["order_placed"]
    await recheck_waiting(world)
    assert await world.kinds(user_id) == []


async def _handle(database: Database, event: Received[Any]) -> None:
    async with database.transaction() as session:
        await handlers.handle(session, event)


async def _is_blocked(world: World) -> bool:
    waiting = await world.rows("SELECT 1 FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")
    return bool(waiting)


async def test_outdated_versions_of_a_contact_are_ignored(world: World) -> None:
    user_id = new_id()
    await world.event("users.user.updated.v1", version=3, user_id=str(user_id), name="Ann New", email="new@example.com")
    await world.registered(user_id, version=1, name="Ann Old", email="old@example.com")
    await world.event(
        "users.user.updated.v1", version=2, user_id=str(user_id), name="Ann Between", email="between@example.com"
    )
    [contact] = await world.rows("SELECT name, email, version FROM contacts")
    assert contact == {"name": "Ann New", "email": "new@example.com", "version": 3}


async def test_a_welcome_is_sent_only_if_requested_and_even_if_the_event_is_outdated(world: World) -> None:
    silent, late = new_id(), new_id()
    await world.registered(silent, send_welcome=False)
    await world.event("users.user.updated.v1", version=2, user_id=str(late), name="L", email="late@example.com")
    await world.registered(late, version=1, send_welcome=True)
    await world.registered(late, version=1, send_welcome=True)
    assert await world.kinds(silent) == []
    assert await world.kinds(late) == ["welcome"]


async def test_an_erased_person_is_deleted_and_no_late_event_restores_them(world: World) -> None:
    user_id = new_id()
    await world.registered(user_id, send_welcome=True)
    await world.order("placed", user_id)
    await world.event("users.user.erased.v1", version=5, user_id=str(user_id))
    await world.event("users.user.updated.v1", version=4, user_id=str(user_id), name="Ann", email="ann@example.com")
    await world.event("users.user.updated.v1", version=6, user_id=str(user_id), name="Ann", email="ann@example.com")
    await world.registered(user_id, send_welcome=True)
    await world.order("shipped", user_id)
    await world.event("users.user.password_changed.v1", version=7, user_id=str(user_id))
    [contact] = await world.rows("SELECT name, email, erased FROM contacts")
    assert contact == {"name": None, "email": None, "erased": True}
    assert await world.kinds(user_id) == []
    assert await world.deliveries() == []


async def test_parked_messages_that_name_an_erased_person_are_deleted_and_others_stay(world: World) -> None:
    erased, other = new_id(), new_id()
    for user_id in (erased, other):
        body = f'{{"user_id": "{user_id}", "email": "{user_id}@example.com"}}'.encode()
        await world.execute(
            "INSERT INTO parked_messages (id, consumer, cause, attempts, body, properties)"
            " VALUES (:id, 'notifier.inbound', 'no room', 4, :body, '{}')",
            id=new_id(),
            body=body,
        )
    await world.event("users.user.erased.v1", version=2, user_id=str(erased))
    [row] = await world.rows("SELECT body FROM parked_messages")
    assert str(other).encode() in row["body"]


async def test_a_person_whose_erasure_arrives_first_stays_unknown(world: World) -> None:
    user_id = new_id()
    await world.event("users.user.erased.v1", version=3, user_id=str(user_id))
    await world.registered(user_id, send_welcome=True)
    assert await world.kinds(user_id) == []


async def test_an_erasure_waits_for_an_uncommitted_notification_and_deletes_it(
    world: World, database: Database
) -> None:
    user_id = new_id()
    await world.registered(user_id)
    placed = received("orders.order.placed.v1", **order_data("placed", user_id, new_id()))
    async with database.transaction() as session:
        await handlers.handle(session, placed)
        erased = asyncio.create_task(world.event("users.user.erased.v1", version=2, user_id=str(user_id)))
        await eventually(lambda: _is_blocked(world))
    await erased
    assert await world.kinds(user_id) == []


LINK_REQUEST = "users.secret_link.requested.v1"
PERSONAL: dict[str, tuple[str, dict[str, Any]]] = {
    "password_changed": ("users.user.password_changed.v1", {"by": "change"}),
    "email_reverted": ("users.user.email_reverted.v1", {"email": "ann@example.com"}),
    "authenticator_changed": ("users.user.authenticator_changed.v1", {"change": "added"}),
    "account_deactivated": ("users.user.deactivated.v1", {}),
    "account_reactivated": ("users.user.reactivated.v1", {}),
    "new_sign_in": ("auth.session.started.v1", {"is_new_device": True, "device": "Firefox"}),
    **{purpose: (LINK_REQUEST, {"purpose": purpose, "link_id": str(new_id())}) for purpose in get_args(LinkKind)},
}


async def test_each_event_about_an_account_becomes_one_notification_and_one_mail(world: World) -> None:
    user_id = new_id()
    await world.registered(user_id)
    for version, (event_type, data) in enumerate(PERSONAL.values(), 2):
        event_id = await world.event(event_type, version=version, user_id=str(user_id), **data)
        async with world.database.transaction() as session:
            again = received(event_type, version=version, event_id=event_id, user_id=str(user_id), **data)
            await handlers.handle(session, again)
    assert await world.kinds(user_id) == sorted(PERSONAL)
    assert await world.states() == ["pending"] * len(PERSONAL)


@pytest.mark.parametrize("is_new_device", [False, None])
async def test_a_sign_in_with_a_known_device_or_the_first_notifies_nobody(
    world: World, *, is_new_device: bool | None
) -> None:
    user_id = new_id()
    data: dict[str, Any] = {} if is_new_device is None else {"is_new_device": is_new_device}
    await world.event("auth.session.started.v1", user_id=str(user_id), **data)
    assert await world.kinds(user_id) == []


async def test_the_commit_that_plans_a_delivery_notifies_the_deliverer(world: World, database: Database) -> None:
    notified = asyncio.Event()
    connection = await asyncpg.connect(database.dsn)
    try:
        await connection.add_listener("deliveries", lambda *_: notified.set())
        user_id = new_id()
        await world.order("placed", user_id)
        await world.registered(user_id)
        await asyncio.wait_for(notified.wait(), 5)
    finally:
        await connection.close()


async def test_a_new_address_is_announced_once_to_the_previous_one(world: World) -> None:
    user_id = new_id()
    await world.registered(user_id, email="old@example.com")
    for version, name, email in (
        (2, "Ann", "new@example.com"),
        (3, "Anna", "new@example.com"),
        (2, "Ann", "x@y.example"),
    ):
        data: dict[str, Any] = {"user_id": str(user_id), "name": name, "email": email, "changed": ["email"]}
        await world.event("users.user.updated.v1", version=version, **data)
    [row] = await world.rows("SELECT data FROM notifications WHERE kind = 'email_changed'")
    assert row["data"] == {"email": "old@example.com"}
    [delivery] = await world.deliveries()
    assert delivery["state"] == "pending"
