"""Notifier reads what producers publish, by their committed schemas and examples, not their code."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from common.db.database import new_id, utc_now
from common.messaging.cloudevents import Envelope
from common.testing.plugin import eventually
from notifier.consumers import handlers

from .delivering import all_sent, delivering
from .mailbox import Mailbox
from .world import World

EVENTS = Path(__file__).parents[3] / "contracts" / "events"
TYPES = handlers.types


def published(event_type: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((EVENTS / f"{event_type}.schema.json").read_text())
    return schema


def read(event_type: str, data: dict[str, Any]) -> Any:
    return handlers.decode(Envelope(new_id(), event_type, "subject", 1, utc_now(), json.dumps(data)))


@pytest.mark.parametrize("event_type", TYPES)
def test_each_published_example_fits_its_reader_model(event_type: str) -> None:
    [example] = published(event_type)["examples"]
    assert read(event_type, example) is not None


@pytest.mark.parametrize("event_type", TYPES)
def test_a_reader_model_requires_no_field_that_a_producer_may_omit(event_type: str) -> None:
    schema = published(event_type)
    [example] = schema["examples"]
    required_only = {name: example[name] for name in schema["required"]}
    jsonschema.validate(required_only, schema)
    assert read(event_type, required_only) is not None


@pytest.mark.parametrize("event_type", TYPES)
def test_a_reader_model_accepts_fields_that_a_newer_producer_adds(event_type: str) -> None:
    [example] = published(event_type)["examples"]
    known = read(event_type, example).data
    newer = read(event_type, {**example, "added_later": {"any": "thing"}}).data
    fields = type(known).model_fields.keys()
    assert newer.model_dump(include=fields) == known.model_dump(include=fields)


async def test_each_published_order_event_becomes_a_mail(world: World, settings: Any, mailbox: Mailbox) -> None:
    order_types = [event_type for event_type in TYPES if event_type.startswith("orders.")]
    for event_type in order_types:
        [example] = published(event_type)["examples"]
        await world.event(event_type, **example)
    await world.registered(read(order_types[0], example).data.customer_id, email="ann@example.com")
    async with delivering(settings):
        await eventually(lambda: all_sent(world))
    assert len(mailbox.to("ann@example.com")) == len(order_types) == 5
