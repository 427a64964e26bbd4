"""What others rely on: the fields of events."""

import jsonschema
import pytest

from common.messaging.asyncapi import event_types, example, schema
from samples import events

FIELDS = {"samples.item.created.v1": {"item_id", "owner_id", "created_at"}}
MODELS = {event.type: event for event in event_types(events)}


def test_these_events_are_published_and_no_others() -> None:
    assert {name: set(model.model_fields) for name, model in MODELS.items()} == FIELDS


@pytest.mark.parametrize("name", FIELDS)
def test_every_example_fits_its_schema(name: str) -> None:
    jsonschema.validate(example(MODELS[name]), schema(MODELS[name]))
