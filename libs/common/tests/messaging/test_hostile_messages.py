"""Malformed and hostile messages are parked at once and delay no other message."""

import io
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from pamqp.commands import Basic

from common.db.database import Database, new_id, utc_now
from common.messaging import parked as parked_module
from common.messaging.batch import FORGED, HANDLED
from common.messaging.broker import prepare_for_resending
from common.messaging.cloudevents import Envelope, encode
from common.messaging.deliveries import BATCH
from common.messaging.topology import RETRY_TIERS
from common.observability.log_limit import MOST_LINES
from common.observability.logs import configure_logging
from common.settings import ServiceSettings
from common.testing.plugin import eventually

from .consuming import POISON, consuming, has_effect, parked, publish


def nested(depth: int) -> bytes:
    """An AMQP table of tables."""
    table = b"\x00\x00\x00\x00"
    for _ in range(depth):
        field = b"\x01aF" + table
        table = len(field).to_bytes(4, "big") + field
    return table


class RawProperties(Basic.Properties):
    """Flags and properties as raw bytes, which no driver would send."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.__dict__["raw"] = raw

    def marshal(self) -> bytes:
        return bytes(self.__dict__["raw"])


async def publish_raw(channel: AbstractChannel, properties: bytes, body: bytes) -> None:
    raw = await channel.get_underlay_channel()
    await raw.basic_publish(
        body, exchange="shop.events", routing_key="shop.item.sold.v1", properties=RawProperties(properties)
    )


@pytest.mark.parametrize(
    ("body", "content_type", "cause"),
    [
        (b"\xff\xfe", "application/json", "body is not JSON"),
        (b"[1]", "application/json", "not a JSON object"),
        (b"{}", "application/json", "attribute"),
        (b'{"specversion": "1.0", "id": 5}', "application/cloudevents+json", "attribute"),
        (b"", "text/plain", "body is not JSON"),
        (b'{"a":' * 100_000, "application/json", "body is not JSON"),
    ],
)
async def test_a_message_that_cannot_be_decoded_is_parked_at_once(
    settings: ServiceSettings,
    database: Database,
    channel: AbstractChannel,
    body: bytes,
    content_type: str,
    cause: str,
) -> None:
    async with consuming(settings, database):
        message = aio_pika.Message(body, content_type=content_type, headers={"odd": bytearray(b"\x00\xff")})
        await (await channel.get_exchange("shop.events")).publish(message, "shop.item.sold.v1")
        ((_, recorded, attempts, kept, _),) = await eventually(lambda: parked(database))
    assert cause in recorded
    assert attempts == 0
    assert kept == body


async def test_data_that_does_not_fit_the_reader_is_parked_at_once_without_its_values(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        body, properties = encode(Envelope(new_id(), "shop.item.sold.v1", "item", 1, utc_now(), '{"number": "secret"}'))
        message = aio_pika.Message(body, headers=properties.headers, content_type="application/json")
        await (await channel.get_exchange("shop.events")).publish(message, "shop.item.sold.v1")
        ((_, cause, _, _, _),) = await eventually(lambda: parked(database))
    assert cause == "data does not fit shop.item.sold.v1: number"


@pytest.mark.parametrize(
    "properties",
    [
        b"\x00\x00",  # none at all
        b"\x00\x80" + b"\x02\xff\xfe",  # a message id that is not UTF-8
        b"\x20\x00" + b"\x00\x00\x00\x04" + b"\x02\xff\xfeV",  # a header whose name is not UTF-8
        b"\x20\x00" + b"\x00\x00\x00\x0b" + b"\x01aT" + b"\x7f" * 8,  # a time past the year 9999
        b"\x20\x00" + b"\x00\x00\x00\x1b" + b"\x11x-waybill-attemptl" + b"\x7f" + b"\xff" * 7,  # more than we make
        b"\x20\x00" + nested(3000),
        b"\x20\x00" + b"\x00\x01\xd4\xc7" + b"\x01aS\x00\x01\xd4\xc0" + b"a" * 120_000,  # nearly a frame
    ],
    ids=["none", "message-id", "header-name", "time", "attempts", "nested", "huge"],
)
async def test_a_message_with_hostile_properties_is_parked_while_others_pass(
    settings: ServiceSettings,
    database: Database,
    channel: AbstractChannel,
    properties: bytes,
) -> None:
    async with consuming(settings, database):
        await publish_raw(channel, properties, b'{"number": 1}')
        await publish(channel, 2)
        await eventually(lambda: has_effect(database, "2"))
        ((_, cause, attempts, body, _),) = await eventually(lambda: parked(database))
    assert cause
    tried = len(RETRY_TIERS) if b"x-waybill-attempt" in properties else 0  # limited to the largest honest value
    assert (attempts, body) == (tried, b'{"number": 1}')


async def test_a_failing_message_too_large_for_another_header_is_parked_and_delays_no_other(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        await publish(channel, POISON, headers={"large": "a" * 125_000})
        await publish(channel, 1)
        await eventually(lambda: has_effect(database, "1"))
        (found,) = await eventually(lambda: parked(database))
    assert (found.cause, found.attempts) == ("ValueError: thirteen", 1)
    assert not {"x-waybill-attempt", "x-waybill-cause"} & found.properties["headers"].keys(), "kept as it came"


def test_properties_of_any_kind_can_be_sent_on_to_a_retry_queue() -> None:
    headers: Any = {"text": b"\xff", "deep": {"list": [b"\x00", 1, None]}, "CC": ["elsewhere"]}
    properties = Basic.Properties(headers=headers, user_id="somebody else")
    properties.delivery_mode = 7
    assert prepare_for_resending(properties, {"more": 1})
    assert properties.headers == {
        "text": bytearray(b"\xff"),
        "deep": {"list": [bytearray(b"\x00"), 1, None]},
        "more": 1,
    }
    assert (properties.delivery_mode, properties.user_id) == (2, None)
    properties.validate()


def test_properties_that_cannot_be_sent_are_recognised() -> None:
    assert not prepare_for_resending(Basic.Properties(headers={"large": "a" * 125_000}), {})
    odd: Any = {"odd": object()}
    assert not prepare_for_resending(Basic.Properties(headers=odd), {})


async def test_a_flood_of_forged_and_undecodable_messages_is_counted_exactly_and_logged_up_to_a_limit(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    stream, flood = io.StringIO(), MOST_LINES + 20
    body, properties = encode(Envelope(new_id(), "shop.item.sold.v1", "item", 1, utc_now(), '{"number": 1}'))
    before = FORGED._value.get(), HANDLED.labels("parked")._value.get()
    async with consuming(settings, database):
        configure_logging("shop", "consume", stream=stream)
        for number in range(flood):
            forged = aio_pika.Message(body, headers=properties.headers, message_id=str(number))
            await channel.default_exchange.publish(forged, "shop.inbound")
            undecodable = aio_pika.Message(b"[%d]" % number)
            await (await channel.get_exchange("shop.events")).publish(undecodable, "shop.item.sold.v1")

        async def all_parked() -> bool:
            return len(await parked(database)) == 2 * flood

        await eventually(all_parked)
        configure_logging("test", "pytest", "warning")
    assert FORGED._value.get() == before[0] + flood
    assert HANDLED.labels("parked")._value.get() == before[1] + 2 * flood
    assert stream.getvalue().count('"forged event"') == MOST_LINES
    assert stream.getvalue().count('"unreadable message parked"') == MOST_LINES


async def test_a_flood_of_distinct_forged_events_fills_no_table(
    settings: ServiceSettings, database: Database, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_module, "FORGED_A_DAY", 10)
    discarded = HANDLED.labels("discarded")._value.get()
    flood = 500
    async with consuming(settings, database):
        for number in range(flood):
            body, properties = encode(
                Envelope(new_id(), "shop.item.sold.v1", "item", 1, utc_now(), f'{{"number": {number}}}')
            )
            forged = aio_pika.Message(body, headers=properties.headers, message_id=str(number))
            await channel.default_exchange.publish(forged, "shop.inbound")
        await publish(channel, 1000)
        await eventually(lambda: has_effect(database, "1000"))
    kept = len(await parked(database))
    assert 10 <= kept <= 10 + BATCH
    assert HANDLED.labels("discarded")._value.get() == discarded + flood - kept
