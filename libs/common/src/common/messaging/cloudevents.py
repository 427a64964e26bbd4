"""Events and their form on the wire: CloudEvents 1.0 over AMQP 0-9-1.

Binary mode: the body is the data, attributes are `cloudEvents_*` headers (CloudEvents AMQP Protocol Binding §3.1).
Structured mode (`application/cloudevents+json`, §3.2) is read as well, and so are the forms of other SDKs: headers with
the prefix `cloudEvents:`, `time` as an AMQP timestamp, and `data_base64`.
"""

import base64
import json
import math
import re
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, NamedTuple, NoReturn

from pamqp.commands import Basic
from pydantic import BaseModel, ConfigDict

from common.messaging.pamqp_patch import UNREADABLE
from common.observability.trace import read_traceparent

SCHEMA_PREFIX: Final = "https://waybill.invalid/contracts/events/"
STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
_PREFIXES: Final = ("cloudevents_", "cloudevents:")
_MOST_VERSIONS: Final = 2**31 - 1
_LARGEST_BODY: Final = 2**20
"""Bytes, as in a request: parsing more would hold up the other messages."""
_LONGEST_TEXT: Final = 500
_NO_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSTORABLE: Final = re.compile(r"[\x00\ud800-\udfff]")
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""The driver stores the last moment of the year 9999 as infinity."""


class Event(BaseModel):
    """Base of the events a service publishes. Its fields are the `data`; consumers declare their own reader models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: ClassVar[str]
    """`{service}.{noun}.{past participle}.v{n}`; also the routing key."""


class Undecodable(Exception):
    """The message is no CloudEvent, or does not fit the reader's model: a retry cannot help."""


class Envelope(NamedTuple):
    """One event. `subject` is the aggregate's id, `version` the aggregate's version, from 1 without a gap."""

    id: uuid.UUID
    type: str
    subject: str
    version: int
    time: datetime
    data: str
    """JSON text."""
    traceparent: str | None = None

    @property
    def service(self) -> str:
        return producer_of(self.type)


def producer_of(event_type: str) -> str:
    return event_type.partition(".")[0]


def aggregate_of(event_type: str) -> str:
    """`orders.order` of `orders.order.placed.v1`."""
    return ".".join(event_type.split(".")[:2])


def exchange_of(service: str) -> str:
    return f"{service}.events"


def stream_of(service: str) -> str:
    return f"{service}.events.log"


def encode(event: Envelope) -> tuple[bytes, Basic.Properties]:
    """Body and properties of the message; the routing key is the type."""
    event_id = str(event.id)
    service = event.service
    headers: dict[str, Any] = {
        "cloudEvents_specversion": "1.0",
        "cloudEvents_id": event_id,
        "cloudEvents_source": f"/{service}",
        "cloudEvents_type": event.type,
        "cloudEvents_subject": event.subject,
        "cloudEvents_time": rfc3339(event.time),
        "cloudEvents_dataschema": f"{SCHEMA_PREFIX}{event.type}.schema.json",
        "cloudEvents_aggregateversion": event.version,
        "cloudEvents_partitionkey": event.subject,
    }
    if event.traceparent:
        headers["traceparent"] = event.traceparent
    properties = Basic.Properties(
        content_type="application/json",
        delivery_mode=2,
        message_id=event_id,
        message_type=event.type,
        app_id=service,
        timestamp=event.time,
        headers=headers,
    )
    return event.data.encode(), properties


def structured(event: Envelope) -> str:
    """The event as one JSON object (CloudEvents JSON Event Format §3), on one line."""
    attributes = {
        "specversion": "1.0",
        "id": str(event.id),
        "source": f"/{event.service}",
        "type": event.type,
        "subject": event.subject,
        "time": rfc3339(event.time),
        "datacontenttype": "application/json",
        "dataschema": f"{SCHEMA_PREFIX}{event.type}.schema.json",
        "aggregateversion": event.version,
        "partitionkey": event.subject,
    }
    if event.traceparent:
        attributes["traceparent"] = event.traceparent
    return f'{json.dumps(attributes)[:-1]}, "data": {event.data}}}'


def decode(body: bytes, properties: Basic.Properties) -> Envelope:
    """The envelope of a message in either mode, with data and times that PostgreSQL can store.

    Raises `Undecodable` with the attribute at fault, and nothing else, whatever the sender wrote.
    """
    try:
        return _decode(body, properties.headers or {}, properties.content_type or "")
    except Undecodable:
        raise
    except KeyError as missing:
        raise Undecodable(f"attribute {missing.args[0]} is missing") from None
    except Exception as error:  # noqa: BLE001 - any error is the sender's fault, and must not end the reader
        raise Undecodable(f"malformed attribute: {type(error).__name__}: {error}"[:_LONGEST_TEXT]) from None


def _decode(body: bytes, headers: dict[str, Any], content_type: str) -> Envelope:
    if UNREADABLE in headers:
        raise Undecodable("properties are not readable: not UTF-8, or no AMQP 0-9-1 fields")
    if content_type.partition(";")[0].strip().lower() == STRUCTURED:
        attributes = _parse(body)[0]
        data = _structured_data(attributes)
    else:
        named = [(key[12:].lower(), value) for key, value in headers.items() if key[:12].lower() in _PREFIXES]
        attributes = dict(named)
        if len(attributes) < len(named):
            raise Undecodable("an attribute has two headers")
        data = _parse(body)[1]
    traceparent = attributes.get("traceparent") or headers.get("traceparent")
    version = attributes["aggregateversion"]
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= _MOST_VERSIONS:
        raise Undecodable("aggregateversion is not a positive integer of 32 bits")
    if attributes["specversion"] != "1.0":
        raise Undecodable("specversion is not 1.0")
    return Envelope(
        id=uuid.UUID(attributes["id"]),
        type=_text(attributes, "type"),
        subject=_text(attributes, "subject"),
        version=version,
        time=_time(attributes["time"]),
        data=data,
        traceparent=read_traceparent(traceparent) if isinstance(traceparent, str) else None,
    )


def _structured_data(attributes: dict[str, Any]) -> str:
    """The data as JSON text (CloudEvents JSON Event Format §3.1)."""
    if "data_base64" not in attributes:
        return json.dumps(attributes.get("data"))
    if "data" in attributes:
        raise Undecodable("data is there twice")
    return _parse(base64.b64decode(attributes["data_base64"], validate=True))[1]


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _parse(body: bytes) -> tuple[dict[str, Any], str]:
    """The JSON object in `body`, and its text.

    Stricter than `json.loads`, which also reads UTF-16 and UTF-32, NaN and infinities, and text that PostgreSQL cannot
    store.
    """
    if len(body) > _LARGEST_BODY:
        raise Undecodable(f"body has more than {_LARGEST_BODY} bytes")
    try:
        text = body.decode("utf-8-sig")
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"body is not JSON in UTF-8: {error}") from None
    if not isinstance(value, dict):
        raise Undecodable("body is not a JSON object")
    if "\\u" in text:  # unescaped, NUL is not JSON and a surrogate is not UTF-8
        _check_texts(value)
    return value, text


def _fraction(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise Undecodable("a number is out of range")
    return value


def _constant(name: str) -> NoReturn:
    raise Undecodable(f"body is not JSON in UTF-8: {name}")


_DECODER: Final = json.JSONDecoder(parse_float=_fraction, parse_constant=_constant)


def _check_texts(value: dict[str, Any]) -> None:
    remaining: list[Any] = [value]
    while remaining:
        match remaining.pop():
            case str() as text if _UNSTORABLE.search(text):
                raise Undecodable("a text has NUL or an unpaired surrogate, which cannot be stored")
            case dict() as members:
                remaining += [*members, *members.values()]
            case list() as items:
                remaining += items


def _time(value: Any) -> datetime:
    """RFC 3339 §5.6 allows a lower-case `z`, which `fromisoformat` refuses."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value.upper())
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not _EARLIEST <= moment < _LATEST:
        raise Undecodable("time is out of range")
    return moment


def _text(attributes: dict[str, Any], name: str) -> str:
    """No control characters, as CloudEvents 1.0 says ("Type System"), and short enough to keep an order by."""
    value = attributes[name]
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST_TEXT or _NO_TEXT.search(value):
        raise Undecodable(f"attribute {name} is not a text of at most {_LONGEST_TEXT} characters")
    return value
