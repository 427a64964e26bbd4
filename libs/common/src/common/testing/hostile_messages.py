"""Messages of every kind: honest events of which hypothesis changes any part."""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given
from hypothesis import seed as seeded
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pamqp.commands import Basic

from common.db.database import new_id, utc_now
from common.messaging.cloudevents import STRUCTURED, Envelope, encode

_ATTRIBUTES: Final = ("specversion", "id", "source", "type", "subject", "time", "aggregateversion", "partitionkey")
_ENCODINGS: Final = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be", "latin-1")
_TIMES: Final = (
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-12:00",
    "1969-12-31T23:59:59Z",
    "2026-01-01t00:00:00z",
    "2016-12-31T23:59:60Z",
)
_BODIES: Final = (
    b'{"a":' * 2000,
    b'{"a": 1e400}',
    b'{"a": "\\u0000"}',
    b'{"a": "\\ud800"}',
    b'{"a": %s}' % (b"9" * 5000),
)

_texts: Final = st.text(st.characters(exclude_categories=()), max_size=20)
_numbers: Final = st.integers(-(2**70), 2**70) | st.sampled_from([0, 1, -1, 2**31, 2**63, 10**400])
_json: Final = st.recursive(
    st.none() | st.booleans() | _numbers | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=4,
)
_fields: Final = st.recursive(
    st.none()
    | st.booleans()
    | _numbers
    | st.floats()
    | _texts
    | st.sampled_from(_TIMES)
    | st.binary(max_size=20)
    | st.binary(max_size=20).map(bytearray)
    | st.datetimes(timezones=st.just(UTC))
    | st.decimals(0, 1000, places=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=4,
)
"""Values of all AMQP 0-9-1 types, and some that no driver can send."""


@dataclass(frozen=True)
class Change:
    """What is changed in an honest event."""

    attributes: dict[str, Any]
    headers: dict[str, Any]
    omitted: str | None
    prefix: str
    data: dict[str, Any]
    encoding: str
    body: bytes | None
    content_type: str | None
    message_id: str | None
    data_attribute: str


changes: Final = st.builds(
    Change,
    attributes=st.just({}) | st.dictionaries(st.sampled_from(_ATTRIBUTES), _fields, max_size=2),
    headers=st.just({}) | st.dictionaries(_texts, _fields, max_size=2),
    omitted=st.none() | st.none() | st.sampled_from(_ATTRIBUTES),
    prefix=st.sampled_from(["cloudEvents_", "cloudEvents:", "CLOUDEVENTS_", "ce-"]),
    data=st.just({}) | st.dictionaries(_texts, _json, max_size=2),
    encoding=st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8", *_ENCODINGS]),
    body=st.none() | st.none() | st.sampled_from(_BODIES) | st.binary(max_size=50),
    content_type=st.sampled_from(["application/json", STRUCTURED, None]) | _texts,
    message_id=st.none() | _texts,
    data_attribute=st.sampled_from(["data", "data_base64"]),
)


def changed(change: Change, event_type: str, data: Mapping[str, Any]) -> tuple[bytes, Basic.Properties]:
    """Body and properties of a new event with this change."""
    _, properties = encode(Envelope(new_id(), event_type, str(new_id()), 1, utc_now(), "{}"))
    honest = {name.removeprefix("cloudEvents_"): value for name, value in (properties.headers or {}).items()}
    attributes = honest | change.attributes
    if change.omitted:
        attributes.pop(change.omitted)
    properties.headers = {f"{change.prefix}{name}": value for name, value in attributes.items()} | change.headers
    properties.content_type = change.content_type
    properties.message_id = change.message_id
    content: dict[str, Any] = {**data, **change.data}
    if change.content_type == STRUCTURED:
        content = {**attributes, change.data_attribute: content}
    text = json.dumps(content, default=str, ensure_ascii=False)
    body = text.encode(change.encoding, errors="backslashreplace") if change.body is None else change.body
    return body, properties


def combined(count: int, *, seed: int, made: int = 300) -> Iterator[Change]:
    """`count` changes, each with parts of several of those that hypothesis `made`, which are slow to make."""
    drawn: list[Change] = []

    @seeded(seed)
    @hypothesis_settings(
        max_examples=made,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(changes)
    def draw(change: Change) -> None:
        drawn.append(change)

    draw()
    choose = random.Random(seed)  # noqa: S311 - repeatable
    for _ in range(count):
        yield Change(**{name: getattr(choose.choice(drawn), name) for name in Change.__dataclass_fields__})
