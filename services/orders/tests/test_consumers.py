"""What happens to the orders of an erased person."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.db.database import Database, new_id, utc_now
from common.messaging.cloudevents import Envelope
from common.web.idempotency import IdempotencyKey
from orders.consumers import handlers

EVENTS = Path(__file__).parents[3] / "contracts" / "events"
ERASED = "users.user.erased.v1"
TABLES = ("orders", "order_timeline", "outbox", "unsendable_events", "event_log")


async def erase(database: Database, data: dict[str, Any]) -> None:
    event = handlers.decode(Envelope(new_id(), ERASED, data["user_id"], 9, utc_now(), json.dumps(data)))
    assert event is not None
    async with database.transaction() as session:
        await handlers.handle(session, event)


async def texts(desk: Any, wanted: str) -> list[str]:
    """The tables that contain the text."""
    return [table for table in TABLES if wanted in str(await desk.rows(f"SELECT t::text FROM {table} t"))]  # noqa: S608


@pytest.mark.parametrize("is_published", [False, True], ids=["still to be published", "published"])
async def test_orders_of_an_erased_person_stay_without_free_text(
    desk: Any, database: Database, is_published: bool
) -> None:
    await desk.stock("LAMP")
    key = IdempotencyKey("for Ada", b"hash")
    first = await desk.place(("LAMP", 2), note="ring at Ada's", key=key)
    second = await desk.place(("LAMP", 1))
    other = await desk.place(("LAMP", 1), customer_id=new_id(), note="leave it at the door")
    await desk.do("cancel", first.id, reason="Ada moved")
    await desk.do("cancel", other.id, reason="no lamp needed")
    if is_published:
        await desk.rows(
            "WITH sent AS (DELETE FROM outbox RETURNING *) INSERT INTO event_log"
            " (event_id, type, subject, version, occurred_at, data)"
            " SELECT event_id, type, subject, version, occurred_at, data FROM sent RETURNING 1"
        )
    assert await texts(desk, "Ada moved") == ["order_timeline", "event_log" if is_published else "outbox"]
    before = await desk.rows("SELECT id, customer_id, status, total_amount, version FROM orders ORDER BY id")

    await erase(database, {"user_id": str(desk.customer)})
    assert [await texts(desk, word) for word in ("Ada", b"hash".hex())] == [[], []]
    assert await desk.rows("SELECT id, customer_id, status, total_amount, version FROM orders ORDER BY id") == before
    assert await desk.count("order_lines") == 3
    [event] = await desk.rows("SELECT data FROM order_timeline WHERE order_id = :id AND version = 2", id=first.id)
    assert event["data"]["reason"] is None
    assert {first.id, second.id} <= {row["id"] for row in before}
    assert await texts(desk, "no lamp needed") == ["order_timeline", "event_log" if is_published else "outbox"]
    assert await texts(desk, "leave it at the door") == ["orders"]


async def test_the_copy_of_an_event_that_cannot_be_sent_loses_its_free_text_too(desk: Any, database: Database) -> None:
    await desk.stock("LAMP")
    placed = await desk.place(("LAMP", 2))
    await desk.do("cancel", placed.id, reason="Ada moved")
    await desk.rows(
        "INSERT INTO unsendable_events (outbox_id, event_id, type, subject, version, occurred_at, data, error)"
        " SELECT id, event_id, type, subject, version, occurred_at, data, 'too long' FROM outbox RETURNING 1"
    )
    assert await texts(desk, "Ada moved") == ["order_timeline", "outbox", "unsendable_events"]
    await erase(database, {"user_id": str(desk.customer)})
    assert await texts(desk, "Ada") == []


async def test_the_producers_example_is_understood_and_what_it_adds_is_ignored(desk: Any, database: Database) -> None:
    [example] = json.loads((EVENTS / f"{ERASED}.schema.json").read_text())["examples"]
    await erase(database, {**example, "added_later": {"any": "thing"}})
    assert handlers.bindings == [("users.events", ERASED)]
