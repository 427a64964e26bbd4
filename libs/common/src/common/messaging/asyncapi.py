"""Contracts of a service's events, generated from the code: JSON Schemas with an example, and AsyncAPI 3.0."""

import enum
import types
import typing
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from common.messaging.cloudevents import SCHEMA_PREFIX, Event, exchange_of, producer_of

_ID: Final = UUID("019b76da-a800-7000-8000-000000000001")
_MOMENT: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
_TEXTS: Final = {"name": "Ada Lovelace", "email": "ada@example.com", "currency": "EUR", "sku": "LAMP-1"}
_HEADERS: Final = {
    "cloudEvents_specversion": {"const": "1.0"},
    "cloudEvents_id": {
        "type": "string",
        "format": "uuid",
        "description": "Identifies the event: a repeated delivery has the same id.",
    },
    "cloudEvents_source": {"type": "string", "format": "uri-reference"},
    "cloudEvents_type": {"type": "string"},
    "cloudEvents_subject": {"type": "string", "description": "The aggregate's id."},
    "cloudEvents_time": {"type": "string", "format": "date-time"},
    "cloudEvents_dataschema": {"type": "string", "format": "uri"},
    "cloudEvents_aggregateversion": {"type": "integer", "minimum": 1, "description": "From 1, without a gap."},
    "cloudEvents_partitionkey": {"type": "string"},
    "traceparent": {"type": "string", "description": "W3C Trace Context."},
}
HEADERS: Final = {
    "type": "object",
    "properties": _HEADERS,
    "required": [name for name in _HEADERS if name != "traceparent"],
}
"""The JSON Schema of every message's headers."""


def event_types(module: types.ModuleType) -> list[type[Event]]:
    """The events that a service's `events.py` defines."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Event) and hasattr(value, "type")
    ]
    return sorted(found, key=lambda event: event.type)


def schema(event: type[Event]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the event's data for consumers: it allows unknown fields."""
    made = _open(event.model_json_schema(mode="serialization"))
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{SCHEMA_PREFIX}{event.type}.schema.json",
    }
    return {**head, **made, "title": event.type, "examples": [example(event)]}


def example(model: type[BaseModel]) -> dict[str, Any]:
    """Valid, readable data for the model, from `Field(examples=[…])` where given."""
    values = {name: _example(name, field.annotation, field) for name, field in model.model_fields.items()}
    return model.model_validate(values).model_dump(mode="json")


def asyncapi(service: str, events: Iterable[type[Event]], *, version: str) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the events that the service sends."""
    sent = list(events)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Waybill {service} events",
            "version": version,
            "description": "CloudEvents 1.0 in binary mode over AMQP 0-9-1. The routing key is the event's type.",
        },
        "defaultContentType": "application/json",
        "channels": {
            event.type: {
                "address": event.type,
                "messages": {event.type: {"$ref": f"#/components/messages/{event.type}"}},
                "bindings": {
                    "amqp": {
                        "is": "routingKey",
                        "exchange": {"name": exchange_of(producer_of(event.type)), "type": "topic", "durable": True},
                    }
                },
            }
            for event in sent
        },
        "operations": {
            f"send.{event.type}": {"action": "send", "channel": {"$ref": f"#/channels/{event.type}"}} for event in sent
        },
        "components": {
            "messageTraits": {"cloudEvent": {"headers": HEADERS}},
            "messages": {
                event.type: {
                    "name": event.type,
                    "contentType": "application/json",
                    "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
                    "payload": {
                        # The newest that AsyncAPI 3.0 names and its parsers accept; the schema itself is 2020-12.
                        "schemaFormat": "application/schema+json;version=draft-07",
                        "schema": {"$ref": f"../events/{event.type}.schema.json"},
                    },
                }
                for event in sent
            },
        },
    }


def _open(made: dict[str, Any]) -> dict[str, Any]:
    """Removes `additionalProperties: false`: a producer may add fields, so no reader may refuse them."""
    for part in (made, *made.get("$defs", {}).values()):
        part.pop("additionalProperties", None)
    return made


def _example(name: str, annotation: Any, field: FieldInfo | None = None) -> Any:  # noqa: PLR0911 - one per kind
    if field is not None and field.examples:
        return field.examples[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {types.UnionType, typing.Union}:
        return _example(name, next(argument for argument in arguments if argument is not type(None)))
    if origin is typing.Annotated:
        return _example(name, arguments[0])
    if origin is Literal:
        return arguments[0]
    if origin in {list, tuple, set, frozenset, Sequence}:
        return [_example(name, arguments[0])]
    match annotation:
        case type() if issubclass(annotation, enum.Enum):
            return next(iter(annotation))
        case type() if issubclass(annotation, BaseModel):
            return example(annotation)
    plain = {UUID: _ID, datetime: _MOMENT, bool: True, int: 1, float: 1.0}
    return plain.get(annotation, _TEXTS.get(name, name.replace("_", " ")))
