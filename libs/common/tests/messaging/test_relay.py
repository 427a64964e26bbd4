import asyncio
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import asyncpg
import pytest
from sqlalchemy import text

import common.messaging.relay
import common.messaging.relay_worker
from common.db.database import Database, new_id
from common.messaging import event_log
from common.messaging.outbox import record
from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.plugin import eventually, management

from .relaying import Sold, counts, equals, has_length, relaying, sell


async def test_a_committed_event_reaches_the_broker_as_a_cloudevent(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    async with relaying(settings):
        event_id = await sell(database, 7, subject="item-1", version=3)
        await eventually(lambda: has_length(subscriber, 1))
    (message,) = subscriber
    assert message.routing_key == message.type == "shop.item.sold.v1"
    assert message.message_id == str(event_id)
    assert (message.app_id, message.content_type, message.delivery_mode) == ("shop", "application/json", 2)
    assert message.body == b'{"number": 7}'
    headers = message.headers
    assert headers["cloudEvents_specversion"] == "1.0"
    assert headers["cloudEvents_id"] == str(event_id)
    assert headers["cloudEvents_source"] == "/shop"
    assert headers["cloudEvents_subject"] == headers["cloudEvents_partitionkey"] == "item-1"
    assert headers["cloudEvents_aggregateversion"] == 3
    assert headers["cloudEvents_time"].endswith("Z")
    assert headers["cloudEvents_dataschema"].endswith("/shop.item.sold.v1.schema.json")


async def test_confirmed_events_move_from_the_outbox_to_the_log_in_published_order(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    sent = [await sell(database, n, subject=f"item-{n % 7}", version=n // 7 + 1) for n in range(70)]
    async with relaying(settings):
        await eventually(lambda: equals(counts(database), (0, 70)))
    assert {message.message_id for message in subscriber} == {str(event_id) for event_id in sent}
    async with database.transaction() as session:
        logged = await session.execute(text("SELECT event_id FROM event_log ORDER BY position"))
        assert list(logged.scalars()) == sent


async def test_each_aggregates_events_arrive_in_order_without_a_gap(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    async with relaying(settings):
        for version in range(1, 21):
            await asyncio.gather(*(sell(database, version, subject=f"i{n}", version=version) for n in range(5)))
        await eventually(lambda: has_length(subscriber, 100))
    for n in range(5):
        versions = [
            message.headers["cloudEvents_aggregateversion"]
            for message in subscriber
            if message.headers["cloudEvents_subject"] == f"i{n}"
        ]
        assert versions == list(range(1, 21))


async def test_a_rolled_back_change_publishes_no_event(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as session:
            await record(session, Sold(number=1), subject="item", version=1)
            raise ZeroDivisionError
    async with relaying(settings):
        kept = await sell(database, 2, subject="item", version=1)
        await eventually(lambda: has_length(subscriber, 1))
    assert [message.message_id for message in subscriber] == [str(kept)]


async def test_two_relays_publish_each_event_once(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    async with relaying(settings), relaying(settings):
        for _ in range(40):
            await asyncio.gather(*(sell(database, n, subject=new_id()) for n in range(5)))
        await eventually(lambda: equals(counts(database), (0, 200)))
    assert len(subscriber) == 200


async def test_events_recorded_while_the_broker_is_unavailable_are_published_when_it_returns(
    settings: ServiceSettings, database: Database
) -> None:
    vhost = f"t-{new_id().hex}"
    url = urlunsplit(urlsplit(settings.amqp_url.get_secret_value())._replace(path=f"/{vhost}"))
    absent = settings.model_copy(update={"amqp_url": type(settings.amqp_url)(url)})
    health = Health()
    async with relaying(absent, health), management() as api:
        await sell(database, 1, subject="item")
        assert not (await health.ready())[0]
        user = urlsplit(url).username
        try:
            await api.put(f"/api/vhosts/{vhost}")
            grant = {"configure": ".*", "write": ".*", "read": ".*"}
            await api.put(f"/api/permissions/{vhost}/{user}", json=grant)
            await eventually(lambda: equals(counts(database), (0, 1)), within=20)
            assert (await health.ready())[0]
            # No queue is bound, so the alternate exchange kept the event.
            async with await aio_pika.connect(url) as connection:
                queue = await (await connection.channel()).get_queue("shop.unrouted")
                assert (await queue.get(no_ack=True)).body == b'{"number": 1}'
        finally:
            await api.delete(f"/api/vhosts/{vhost}")


async def test_a_relay_is_ready_while_broker_and_database_respond(
    settings: ServiceSettings, database: Database, postgres_server: str
) -> None:
    health = Health()
    await database.ping()
    async with relaying(settings, health):
        await eventually(lambda: equals(health.ready(), (True, {"broker": "ok", "postgres": "ok"})), within=20)
        admin = await asyncpg.connect(postgres_server)
        try:
            # Open connections stay open, as with a server that hangs.
            await admin.execute(f'ALTER DATABASE "{database.engine.url.database}" ALLOW_CONNECTIONS false')
            is_ready, checks = await health.ready()
            assert (is_ready, checks["broker"]) == (False, "ok")
            assert checks["postgres"] != "ok"
        finally:
            await admin.execute(f'ALTER DATABASE "{database.engine.url.database}" ALLOW_CONNECTIONS true')
            await admin.close()


async def test_an_event_is_published_when_its_wake_up_was_lost(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    async with relaying(settings):
        async with database.engine.begin() as connection:
            await connection.execute(
                text(
                    "INSERT INTO outbox (event_id, type, subject, version, occurred_at, data)"
                    " VALUES (gen_random_uuid(), 'shop.item.sold.v1', 'item', 1, now(), '{}')"
                )
            )
        await eventually(lambda: has_length(subscriber, 1))


async def test_an_event_is_published_by_its_wake_up_without_a_poll(
    settings: ServiceSettings, database: Database, subscriber: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.messaging.relay_worker._POLL", 3600)
    async with relaying(settings):
        for number in range(1, 4):  # the relay may find the first one when it starts
            await sell(database, number, subject="item", version=number)
            await eventually(partial(has_length, subscriber, number))


async def test_a_stream_keeps_events_that_match_its_pattern_for_later_readers(
    settings: ServiceSettings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(settings), "streamed", "shop.item.#")
    async with relaying(settings):
        await sell(database, 1, subject="item")
        await sell(database, 2, subject="item", version=2)
        await eventually(lambda: equals(counts(database), (0, 2)))
    async with await aio_pika.connect(settings.amqp_url.get_secret_value()) as connection:
        channel = await connection.channel()
        await channel.set_qos(10)
        stream = await channel.get_queue("shop.events.log", ensure=False)
        for _ in range(2):  # reading removes nothing
            received: asyncio.Queue[Any] = asyncio.Queue()
            tag = await stream.consume(received.put, arguments={"x-stream-offset": "first"})
            bodies = [(await asyncio.wait_for(received.get(), 10)).body for _ in range(2)]
            assert bodies == [b'{"number": 1}', b'{"number": 2}']
            await stream.cancel(tag)


async def test_a_relay_that_never_idles_still_maintains_the_event_log(
    settings: ServiceSettings, database: Database, subscriber: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common.messaging.relay_worker, "BATCH", 1)  # each batch is full while rows are left
    monkeypatch.setattr(common.messaging.relay, "_MAINTENANCE_INTERVAL", -1)
    monkeypatch.setattr(common.messaging.relay, "_SHARE_INTERVAL", 0.005)
    maintain, pending = event_log.maintain, set()

    async def count_and_maintain(connection: Any, days: int) -> None:
        pending.add(await connection.fetchval("SELECT count(*) FROM outbox"))
        await maintain(connection, days)

    monkeypatch.setattr(event_log, "maintain", count_and_maintain)
    for number in range(30):
        await sell(database, number, subject=new_id())
    async with relaying(settings):
        await eventually(lambda: equals(counts(database), (0, 30)), within=30)
    assert len(pending - {0, 30}) > 1
