"""Copies of a message: a stranger's changes nothing about one that is parked, and none changes an aggregate's order.

A relay that dies publishes again, and a lost connection returns what a consumer still works on: one copy may fail where
the other is processed. An event is never both parked and processed.
"""

import asyncio
from copy import deepcopy
from typing import Any

import pytest
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database, new_id, utc_now
from common.messaging import parked
from common.messaging.aggregate_versions import advance
from common.messaging.batch import decode_delivery, process_batch
from common.messaging.cloudevents import Envelope, encode
from common.messaging.deferred import is_sendable
from common.messaging.event_handlers import EventHandlers, Received
from common.messaging.inbox import first_deliveries
from common.testing.plugin import eventually

from .consuming import Sold, effects

QUEUE = "shop.inbound"
ITEM = ("shop.item", "item")


class Refused(BaseModel):
    number: str


def make_handlers(model: type[BaseModel] = Sold) -> EventHandlers:
    handlers = EventHandlers(in_order=["shop.item"])

    @handlers.on("shop.item.sold.v1", model)
    async def sold(session: AsyncSession, event: Received[BaseModel]) -> None:
        await session.execute(text("INSERT INTO effects (note) VALUES (:note)"), {"note": str(event.version)})

    return handlers


def message(version: int = 1, exchange: str = "shop.events", **headers: Any) -> DeliveredMessage:
    body, properties = encode(Envelope(new_id(), "shop.item.sold.v1", "item", version, utc_now(), '{"number": 1}'))
    properties.headers = {**(properties.headers or {}), **headers}
    delivery = Basic.Deliver("tag", 1, False, exchange, "shop.item.sold.v1")
    return DeliveredMessage(delivery, ContentHeader(properties=properties), body, channel=None)  # type: ignore[arg-type]


def copy_of(original: DeliveredMessage, exchange: str, **headers: Any) -> DeliveredMessage:
    header = deepcopy(original.header)
    header.properties.headers = {**(header.properties.headers or {}), **headers}
    delivery = Basic.Deliver("tag", 2, False, exchange, "shop.item.sold.v1")
    return DeliveredMessage(delivery, header, original.body, channel=None)  # type: ignore[arg-type]


async def process(database: Database, *messages: DeliveredMessage, model: type[BaseModel] = Sold) -> None:
    handlers = make_handlers(model)
    await process_batch(database, QUEUE, handlers, [decode_delivery(each, QUEUE, handlers) for each in messages])


async def open_rows(database: Database) -> list[Any]:
    async with database.transaction() as session:
        return [await parked.find(session, QUEUE, row["id"]) for row in await parked.list_open(session, QUEUE)]


async def test_a_row_that_a_forged_copy_opened_gets_the_properties_of_the_event_itself(database: Database) -> None:
    original = message()
    await process(database, copy_of(original, "stranger.events", cloudEvents_subject="another"))
    await process(database, original, model=Refused)
    [row] = await open_rows(database)
    assert row["cause"].startswith("data does not fit")
    assert row["properties"]["headers"]["cloudEvents_subject"] == "item"


@pytest.mark.parametrize(
    "change", [{}, {"cloudEvents_specversion": "0.3"}], ids=["forged", "unreadable, through the producer's exchange"]
)
async def test_a_strangers_copy_changes_nothing_about_a_parked_event(database: Database, change: Any) -> None:
    original = message()
    await process(database, original, model=Refused)
    before = await open_rows(database)
    exchange = "shop.events" if change else "stranger.events"
    await process(database, copy_of(original, exchange, **change), model=Refused)
    assert await open_rows(database) == before


async def test_a_copy_of_a_type_without_a_handler_closes_no_parked_event(database: Database) -> None:
    original = message()
    await process(database, original, model=Refused)
    other = copy_of(original, "shop.events", cloudEvents_type="shop.other.made.v1")
    await process(database, other)
    assert len(await open_rows(database)) == 1


async def test_a_replayed_event_whose_handler_is_gone_is_closed(database: Database) -> None:
    original = message()
    await process(database, original, model=Refused)
    replayed = copy_of(original, "shop.retry", cloudEvents_type="shop.other.made.v1")
    await process(database, replayed)
    assert await open_rows(database) == []


async def test_a_copy_that_is_processed_closes_the_row_that_another_opened(database: Database) -> None:
    original = message()
    await process(database, original, model=Refused)
    await process(database, copy_of(original, "shop.events"))
    assert (await open_rows(database), await effects(database)) == ([], ["1"])


async def test_a_copy_that_fails_after_another_was_processed_is_not_parked(database: Database) -> None:
    original = message()
    await process(database, original)
    await process(database, copy_of(original, "shop.events"), model=Refused)
    assert (await open_rows(database), await effects(database)) == ([], ["1"])


@pytest.mark.parametrize("first", ["fails", "succeeds"])
async def test_of_two_copies_at_once_the_one_that_is_processed_decides(database: Database, first: str) -> None:
    original = message()
    deliveries = [decode_delivery(original, QUEUE, make_handlers())]
    second: asyncio.Task[None]
    async with database.transaction() as session:
        if first == "fails":
            await parked.park(session, QUEUE, original, "", attempts=4, event_id=deliveries[0].event_id)
            second = asyncio.create_task(process_batch(database, QUEUE, make_handlers(), deliveries))
        else:
            await first_deliveries(session, QUEUE, [deliveries[0].event.id])  # type: ignore[union-attr]
            second = asyncio.create_task(process(database, copy_of(original, "shop.events"), model=Refused))
        await eventually(lambda: _waits_for_a_lock(database))
    await second
    assert (await open_rows(database), await effects(database)) == ([], ["1"] if first == "fails" else [])


async def _waits_for_a_lock(database: Database) -> bool:
    async with database.transaction() as session:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(await session.scalar(text(waiting)))


async def test_events_without_a_message_id_and_with_equal_data_are_parked_each(database: Database) -> None:
    first, second = message(1), message(2)
    for each in (first, second):
        each.header.properties.message_id = None
    await process(database, first, second, model=Refused)
    assert len(await open_rows(database)) == 2


async def test_an_event_that_comes_early_and_again_after_its_predecessor_is_processed_after_it(
    database: Database,
) -> None:
    async with database.transaction() as session:
        await advance(session, QUEUE, {ITEM: 1})
    third = message(3)
    await process(database, third, message(2), copy_of(third, "shop.events"))
    assert await effects(database) == ["2", "3"]


def test_a_senders_table_that_looks_like_a_mark_is_restored_as_a_table() -> None:
    headers: dict[str, Any] = {"bytes": {"$bytes": "abc"}, "time": {"$time": "x"}, "list": [bytearray(b"\xff")]}
    properties = Basic.Properties(headers=headers)
    assert parked.restored(parked.as_json(properties))["headers"] == headers


@pytest.mark.parametrize(("header", "sendable"), [("a" * 90_000, True), ("\x00" * 90_000, False)])
def test_a_message_is_deferred_only_if_what_is_stored_can_be_sent(header: str, sendable: bool) -> None:
    assert is_sendable(message(odd=header)) == sendable
