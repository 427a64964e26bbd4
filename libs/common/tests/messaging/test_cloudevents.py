"""Messages are read in all forms that SDKs write. Whatever else arrives is `Undecodable`, and nothing else happens."""

import base64
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from aiormq.abc import DeliveredMessage
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from common.db.database import new_id
from common.messaging.batch import ATTEMPT_HEADER, decode_delivery
from common.messaging.cloudevents import Envelope, Undecodable, decode, encode
from common.testing.hostile_messages import Change, changed, changes, combined

from .consuming import make_handlers

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EVENT = Envelope(new_id(), "shop.item.sold.v1", "item", 3, NOON, '{"number": 1}')


def decoded(body: bytes | None = None, **changes: Any) -> Envelope:
    """The event in binary mode with some attributes changed."""
    data, properties = encode(EVENT)
    properties.headers = {**(properties.headers or {}), **{f"cloudEvents_{key}": each for key, each in changes.items()}}
    return decode(data if body is None else body, properties)


def structured(**changes: Any) -> Envelope:
    attributes = {
        "specversion": "1.0",
        "id": str(EVENT.id),
        "type": EVENT.type,
        "subject": EVENT.subject,
        "aggregateversion": EVENT.version,
        "time": "2026-01-01T12:00:00Z",
    }
    body = json.dumps(attributes | changes).encode()
    return decode(body, Basic.Properties(content_type="application/cloudevents+json"))


@pytest.mark.parametrize("prefix", ["cloudEvents_", "cloudEvents:", "CLOUDEVENTS_", "cloudevents:"])
def test_the_headers_of_every_sdk_are_read(prefix: str) -> None:
    body, properties = encode(EVENT)
    named = {key.replace("cloudEvents_", prefix): value for key, value in (properties.headers or {}).items()}
    properties.headers = named
    assert decode(body, properties) == EVENT


def test_an_attribute_with_two_headers_is_refused() -> None:
    body, properties = encode(EVENT)
    properties.headers = {**(properties.headers or {}), "cloudEvents:id": str(new_id())}
    with pytest.raises(Undecodable, match="two headers"):
        decode(body, properties)


@pytest.mark.parametrize(
    "time",
    [
        NOON,
        "2026-01-01T12:00:00Z",
        "2026-01-01t12:00:00z",
        "2026-01-01T13:00:00.000000000+01:00",
        "2026-01-01T12:00:00",
    ],
)
def test_a_time_is_read_as_text_of_either_case_or_as_an_amqp_timestamp(time: object) -> None:
    assert decoded(time=time).time == NOON


def test_structured_data_is_read_as_json_or_in_base64() -> None:
    assert structured(data={"number": 1}) == EVENT
    assert structured(data_base64=base64.b64encode(b'{"number": 1}').decode()) == EVENT


@pytest.mark.parametrize("encoded", ["{}", 5, None, base64.b64encode(b'{"a": NaN}').decode()])
def test_data_that_is_no_json_in_base64_is_refused(encoded: object) -> None:
    with pytest.raises(Undecodable):
        structured(data_base64=encoded)


def test_data_in_both_forms_is_refused() -> None:
    with pytest.raises(Undecodable, match="twice"):
        structured(data={}, data_base64="e30=")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "latin-1"])
def test_json_in_another_encoding_than_utf8_is_refused(encoding: str) -> None:
    with pytest.raises(Undecodable, match="not JSON in UTF-8"):
        decoded('{"name": "é"}'.encode(encoding))


def test_json_in_utf8_may_have_a_byte_order_mark() -> None:
    assert decoded(b"\xef\xbb\xbf{}").data == "{}"


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (rb'{"gift_text": "a\u0000b"}', "NUL"),
        (rb'{"lines": [{"a\u0000": 1}]}', "NUL"),
        (rb'{"name": "\ud800"}', "surrogate"),
        (rb'{"name": "\udc00\ud800"}', "surrogate"),
        (b'{"price": NaN}', "NaN"),
        (b'{"price": -Infinity}', "Infinity"),
        (b'{"price": 1e400}', "out of range"),
        (b'{"price": %s}' % (b"9" * 5000), "digits"),
        (b'{"name": "%s"}' % (b"a" * 2**20), "1048576 bytes"),
    ],
)
def test_data_that_postgresql_cannot_store_is_refused(body: bytes, cause: str) -> None:
    with pytest.raises(Undecodable, match=cause):
        decoded(body)
    text = body.decode()
    with pytest.raises(Undecodable, match=cause):
        decode(
            f'{{"specversion": "1.0", "data": {text}}}'.encode(),
            Basic.Properties(content_type="application/cloudevents+json"),
        )


def test_text_that_only_looks_like_an_escape_is_read() -> None:
    body = rb'{"name": "\\u0000 \ud83d\ude00"}'
    assert decoded(body).data == body.decode()


@pytest.mark.parametrize(
    "time",
    [
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-12:00",
        "9999-12-31T23:59:59.999999Z",  # PostgreSQL's driver stores it as infinity
        "1969-12-31T23:59:59Z",
        "1 January 2026",
        1767268800,
        None,
        b"2026-01-01T12:00:00Z",
    ],
)
def test_a_time_that_is_none_or_out_of_range_is_refused(time: object) -> None:
    with pytest.raises(Undecodable):
        decoded(time=time)


def check(body: bytes, properties: Basic.Properties) -> None:
    """`decode` returns an event that PostgreSQL can store, or raises `Undecodable`; `decode_delivery` never raises."""
    properties.headers = {**(properties.headers or {}), ATTEMPT_HEADER: (properties.headers or {}).get("odd")}
    delivery = Basic.Deliver("tag", 1, exchange="shop.events", routing_key="shop.item.sold.v1")
    message = DeliveredMessage(delivery, ContentHeader(properties=properties), body, channel=None)  # type: ignore[arg-type]
    delivered = decode_delivery(message, "shop.inbound", make_handlers())
    with delivered.traced():
        assert 0 <= delivered.count(ATTEMPT_HEADER) <= 3
    try:
        event = decode(body, properties)
    except Undecodable as refused:
        assert delivered.cause == str(refused)  # noqa: PT017 - it may be raised or not
        assert 0 < len(delivered.cause) < 1000
    else:
        stored = json.dumps([*event[1:4], json.loads(event.data, parse_constant=pytest.fail)], ensure_ascii=False)
        stored.encode()
        assert "\\u0000" not in stored.replace("\\\\", "")
        assert math.isfinite(event.time.timestamp())
        assert 1970 <= event.time.astimezone(UTC).year < 9999


@hypothesis_settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(changes)
def test_whatever_is_changed_in_an_event_it_is_read_or_refused(change: Change) -> None:
    check(*changed(change, "shop.item.sold.v1", {"number": 1}))


def test_thousands_of_combined_changes_are_read_or_refused() -> None:
    for change in combined(3000, seed=0, made=100):
        check(*changed(change, "shop.item.sold.v1", {"number": 1}))


@given(st.binary(max_size=200), st.text(), st.dictionaries(st.text(), st.binary()))
def test_any_bytes_are_read_or_refused(body: bytes, content_type: str, headers: dict[str, Any]) -> None:
    check(body, Basic.Properties(content_type=content_type, headers=headers))
