"""Events and their form on the wire: CloudEvents 1.0 over AMQP 0-9-1.

Binary mode: the body is the data, attributes are `cloudEvents_*` headers (CloudEvents AMQP Protocol Binding §3.1).
Structured mode (`application/cloudevents+json`, §3.2) is read as well.
"""

import json
import re
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, NamedTuple

from pamqp.commands import Basic
from pydantic import BaseModel, ConfigDict

from common.messaging.pamqp_patch import UNREADABLE
from common.observability.trace import read_traceparent

SCHEMA_PREFIX: Final = "https://waybill.invalid/contracts/events/"
STRUCTURED: Final = "application/cloudevents+json"
_HEADER: Final = "cloudEvents_"
_MOST_VERSIONS: Final = 2**31 - 1
_LONGEST_TEXT: Final = 500
_NO_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


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


def decode(body: bytes, properties: Basic.Properties) -> Envelope:
    """The envelope of a message in either mode. Raises `Undecodable` with the attribute at fault."""
    headers = properties.headers or {}
    if UNREADABLE in headers:
        raise Undecodable("properties are not readable: not UTF-8, or no AMQP 0-9-1 fields")
    if (properties.content_type or "").partition(";")[0].strip().lower() == STRUCTURED:
        attributes = _object(body)
        data = json.dumps(attributes.pop("data", None))
    else:
        attributes = {
            key[len(_HEADER) :]: value for key, value in headers.items() if key.lower().startswith("cloudevents_")
        }
        _object(body)
        data = body.decode()
    try:
        traceparent = attributes.get("traceparent") or headers.get("traceparent")
        version = attributes["aggregateversion"]
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= _MOST_VERSIONS:
            raise Undecodable("aggregateversion is not a positive integer of 32 bits")
        if attributes["specversion"] != "1.0":
            raise Undecodable("specversion is not 1.0")
        time = datetime.fromisoformat(attributes["time"])
        return Envelope(
            id=uuid.UUID(attributes["id"]),
            type=_text(attributes, "type"),
            subject=_text(attributes, "subject"),
            version=version,
            time=time if time.tzinfo else time.replace(tzinfo=UTC),
            data=data,
            traceparent=read_traceparent(traceparent) if isinstance(traceparent, str) else None,
        )
    except KeyError as missing:
        raise Undecodable(f"attribute {missing.args[0]} is missing") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise Undecodable(f"malformed attribute: {error}") from None


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"body is not JSON: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise Undecodable("body is not a JSON object")
    return value


def _text(attributes: dict[str, Any], name: str) -> str:
    """No control characters, as CloudEvents 1.0 says ("Type System"), and short enough to keep an order by."""
    value = attributes[name]
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST_TEXT or _NO_TEXT.search(value):
        raise Undecodable(f"attribute {name} is not a text of at most {_LONGEST_TEXT} characters")
    return value
