"""What other programs rely on: the fields of events, and the API's description."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from common.db.database import new_id, utc_now
from common.messaging.asyncapi import event_types, example, schema
from common.messaging.cloudevents import Envelope
from orders import events
from orders.consumers import handlers

EVENTS = Path(__file__).parents[3] / "contracts" / "events"

FIELDS = {
    "orders.order.placed.v1": {"order_id", "customer_id", "lines", "total", "placed_at"},
    "orders.order.confirmed.v1": {"order_id", "customer_id", "total"},
    "orders.order.shipped.v1": {"order_id", "customer_id", "total", "carrier", "tracking_number"},
    "orders.order.delivered.v1": {"order_id", "customer_id", "total"},
    "orders.order.cancelled.v1": {"order_id", "customer_id", "total", "reason", "cancelled_by"},
}
MODELS = {event.type: event for event in event_types(events)}


def test_these_events_are_published_and_no_others() -> None:
    assert {name: set(model.model_fields) for name, model in MODELS.items()} == FIELDS


@pytest.mark.parametrize("name", FIELDS)
def test_every_example_fits_its_schema(name: str) -> None:
    jsonschema.validate(example(MODELS[name]), schema(MODELS[name]))


@pytest.mark.parametrize("event_type", handlers.types)
def test_the_events_that_orders_reads_are_read_from_older_and_newer_producers(event_type: str) -> None:
    published = json.loads((EVENTS / f"{event_type}.schema.json").read_text())
    [whole] = published["examples"]
    for data in (whole, {name: whole[name] for name in published["required"]}, {**whole, "added_later": {"any": 1}}):
        read = handlers.decode(Envelope(new_id(), event_type, "subject", 1, utc_now(), json.dumps(data)))
        assert read is not None
        assert read.data.model_dump(mode="json").items() <= whole.items()


async def test_every_recorded_event_is_what_its_model_would_write(desk: Any) -> None:
    """SQL writes the data of the placed event: it must equal the model's, down to the format of times."""
    await desk.stock("LAMP")
    first, second = await desk.place(("LAMP", 1), ("LAMP", 3)), await desk.place(("LAMP", 1))
    for step in ("confirm", "ship", "deliver"):
        await desk.do(step, first.id)
    await desk.do("cancel", second.id)
    recorded = await desk.rows("SELECT type, data FROM outbox")
    assert {event["type"] for event in recorded} == set(FIELDS)
    for event in recorded:
        model = MODELS[event["type"]]
        jsonschema.validate(event["data"], schema(model))
        assert model.model_validate(event["data"]).model_dump(mode="json") == event["data"]


OPERATIONS = {
    ("post", "/orders"): {"201", "401", "403", "409", "422"},
    ("get", "/orders"): {"200", "400", "401", "403", "422"},
    ("get", "/orders/{order_id}"): {"200", "304", "401", "403", "404", "422"},
    ("get", "/orders/{order_id}/events"): {"200", "400", "401", "403", "404", "422"},
    ("post", "/orders/{order_id}/cancel"): {"200", "401", "403", "404", "409", "412", "422"},
    ("post", "/orders/{order_id}/confirm"): {"200", "401", "403", "404", "409", "412", "422"},
    ("post", "/orders/{order_id}/ship"): {"200", "401", "403", "404", "409", "412", "422"},
    ("post", "/orders/{order_id}/deliver"): {"200", "401", "403", "404", "409", "412", "422"},
    ("get", "/events"): {"200", "401", "403", "410", "422"},
    ("get", "/events/stream"): {"200", "400", "401", "403", "410", "422", "429"},
    ("get", "/orders/{order_id}/stream"): {"200", "400", "401", "403", "404", "410", "422", "429"},
    ("get", "/products"): {"200", "400", "401", "422"},
    ("get", "/products/{sku}"): {"200", "401", "404", "422"},
    ("put", "/products/{sku}"): {"200", "201", "401", "403", "422"},
}


@pytest.fixture
async def described(shop: Any) -> dict[str, Any]:
    document: dict[str, Any] = (await shop.client.get("/openapi.json")).json()
    return document


def test_the_api_describes_every_operation_with_what_it_answers(described: Any) -> None:
    found = {
        (method, path): set(operation["responses"])
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert set(found) == set(OPERATIONS)
    for operation, statuses in OPERATIONS.items():
        assert statuses | {"500", "503"} <= found[operation], operation


def test_an_order_is_described_with_the_fields_it_has(described: Any) -> None:
    shown = described["components"]["schemas"]["OrderOut"]
    names = {"id", "customer_id", "status", "lines", "total", "note", "created_at", "updated_at"}
    assert set(shown["properties"]) == set(shown["required"]) == names


async def test_an_order_is_answered_as_it_is_described(shop: Any, described: Any) -> None:
    order = await shop.order()
    schemas = described["components"]["schemas"]
    jsonschema.validate(order, {**schemas["OrderOut"], "components": {"schemas": schemas}})
