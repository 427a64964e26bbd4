"""Which changes of contracts break users of the last release, and which do not."""

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from waybill_dev.base.state import find_state
from waybill_dev.checks.contract_compatibility.__main__ import compared, complaints
from waybill_dev.checks.contract_compatibility.documents import asyncapi_breaks, event_breaks, openapi_breaks

CONTRACTS = find_state().checkout / "contracts"
Change = Callable[[Any], object]

EVENT: dict[str, Any] = {
    "$defs": {"Line": {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}},
    "type": "object",
    "properties": {
        "order_id": {"type": "string", "format": "uuid"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
        "reason": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "by": {"enum": ["customer", "staff"], "type": "string"},
        "count": {"type": "integer"},
        "total": {"$ref": "#/$defs/Line"},
    },
    "required": ["order_id", "lines", "reason", "by"],
}


def changed(document: dict[str, Any], change: Change) -> dict[str, Any]:
    new = copy.deepcopy(document)
    change(new)
    return new


def rename(fields: dict[str, Any], old: str, new: str) -> None:
    fields[new] = fields.pop(old)


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (lambda e: e["properties"].pop("count"), "count", "is gone"),
        (lambda e: rename(e["properties"], "order_id", "id"), "order_id", "is gone"),
        (lambda e: e["$defs"]["Line"]["properties"].pop("sku"), "lines[].sku", "is gone"),
        (lambda e: e["required"].append("count"), "count", "is now required"),
        (lambda e: e["properties"].update(new={}) or e["required"].append("new"), "new", "is now required"),
        (lambda e: e["required"].remove("by"), "by", "was always there, now may be missing"),
        (lambda e: e["properties"].update(count={"type": "string"}), "count", "was integer, now is string"),
        (lambda e: e["properties"].update(count={"type": "number"}), "count", "was integer, now is number"),
        (lambda e: e["properties"]["by"]["enum"].append("system"), "by", "may now be 'system'"),
        (lambda e: e["properties"]["by"]["enum"].remove("staff"), "by", "may no longer be 'staff'"),
        (lambda e: e["properties"]["by"].pop("enum"), "by", "may now be any other value"),
        (lambda e: e["properties"]["count"].update(enum=[1]), "count", "may no longer be any other value"),
        (lambda e: e["properties"]["reason"]["anyOf"].pop(), "reason", "may no longer be null"),
        (lambda e: e["properties"]["reason"]["anyOf"].append({"type": "integer"}), "reason", "may now be integer"),
        (lambda e: e["properties"]["count"].update(minimum=1), "count", "minimum was None, now is 1"),
        (lambda e: e["properties"]["order_id"].pop("format"), "order_id", "format was uuid, now is None"),
        (lambda e: e.update(additionalProperties=False), "", "refuses unknown fields now"),
    ],
)
def test_an_event_breaks_in_both_directions(change: Change, where: str, what: str) -> None:
    found = {(one.where, one.what) for one in event_breaks(EVENT, changed(EVENT, change))}
    assert (where, what) in found


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e["properties"].update(note={"type": "string"}),
        lambda e: e["properties"].update(note={"anyOf": [{"type": "string"}, {"type": "null"}]}),
        lambda e: e["$defs"]["Line"]["properties"].update(name={"type": "string"}),
        lambda e: e["properties"]["count"].update(title="Count", description="How many", examples=[3]),
        lambda e: e["required"].reverse(),
        lambda e: e["properties"]["reason"]["anyOf"].reverse(),
        lambda e: e["properties"].update(total=copy.deepcopy(e["$defs"]["Line"])),
    ],
)
def test_an_event_may_gain_optional_fields_and_descriptions(change: Change) -> None:
    assert list(event_breaks(EVENT, changed(EVENT, change))) == []


def test_a_recursive_schema_is_compared_once() -> None:
    tree = {
        "$defs": {"T": {"properties": {"child": {"$ref": "#/$defs/T"}}}},
        "properties": {"t": {"$ref": "#/$defs/T"}},
    }
    assert list(event_breaks(tree, tree)) == []


API: dict[str, Any] = {
    "paths": {
        "/orders": {
            "post": {
                "parameters": [{"name": "dry", "in": "query", "schema": {"type": "boolean"}}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/In"}}}},
                "responses": {
                    "201": {
                        "headers": {"Location": {}},
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Out"}}},
                    },
                    "409": {},
                },
            },
            "get": {"responses": {"200": {}}},
        }
    },
    "components": {
        "schemas": {
            "In": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "note": {"type": "string", "maxLength": 100},
                    "kind": {"enum": ["a", "b"], "type": "string"},
                    "sku": {"type": "string"},
                },
                "required": ["sku"],
            },
            "Out": {
                "type": "object",
                "properties": {"id": {"type": "string"}, "state": {"enum": ["placed", "sent"], "type": "string"}},
                "required": ["id"],
            },
        }
    },
}
POST = API["paths"]["/orders"]["post"]


def post(document: Any) -> Any:
    return document["paths"]["/orders"]["post"]


def schema(document: Any, name: str) -> Any:
    return document["components"]["schemas"][name]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda a: a["paths"].pop("/orders"), "POST /orders"),
        (lambda a: a["paths"]["/orders"].pop("get"), "GET /orders"),
        (lambda a: post(a)["responses"].pop("409"), "POST /orders: 409"),
        (lambda a: post(a)["responses"]["201"].pop("headers"), "POST /orders: 201: header Location"),
        (lambda a: post(a)["parameters"].clear(), "POST /orders: query parameter dry"),
        (lambda a: post(a)["parameters"][0].update(required=True), "POST /orders: query parameter dry"),
        (
            lambda a: post(a)["parameters"].append({"name": "k", "in": "header", "required": True}),
            "POST /orders: header parameter k",
        ),
        (lambda a: post(a)["requestBody"].update(required=True), "POST /orders: request body"),
        (lambda a: post(a).update(security=[{"bearer": []}]), "POST /orders"),
        (lambda a: schema(a, "In")["required"].append("note"), "POST /orders: request body: note"),
        (lambda a: schema(a, "In")["properties"].pop("note"), "POST /orders: request body: note"),
        (lambda a: schema(a, "In")["properties"]["note"].update(maxLength=50), "POST /orders: request body: note"),
        (lambda a: schema(a, "In")["properties"]["note"].update(pattern="^x"), "POST /orders: request body: note"),
        (lambda a: schema(a, "In")["properties"]["kind"]["enum"].remove("a"), "POST /orders: request body: kind"),
        (lambda a: schema(a, "In")["properties"]["sku"].update(type="integer"), "POST /orders: request body: sku"),
        (lambda a: schema(a, "Out")["properties"].pop("state"), "POST /orders: 201: state"),
        (lambda a: schema(a, "Out")["required"].clear(), "POST /orders: 201: id"),
        (lambda a: schema(a, "Out")["properties"]["state"]["enum"].append("lost"), "POST /orders: 201: state"),
        (lambda a: schema(a, "Out")["properties"]["id"].update(type=["string", "null"]), "POST /orders: 201: id"),
    ],
)
def test_an_api_breaks_for_its_clients(change: Change, where: str) -> None:
    assert where in {one.where for one in openapi_breaks(API, changed(API, change))}


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a["paths"].update({"/products": {}}),
        lambda a: post(a)["responses"].update({"429": {}}),
        lambda a: post(a)["parameters"].append({"name": "q", "in": "query"}),
        lambda a: schema(a, "In")["properties"].update(more={"type": "string"}),
        lambda a: schema(a, "In")["required"].clear(),
        lambda a: schema(a, "In")["properties"]["note"].update(maxLength=200),
        lambda a: schema(a, "In")["properties"]["kind"]["enum"].append("c"),
        lambda a: schema(a, "In")["properties"]["sku"].update(type=["string", "null"]),
        lambda a: schema(a, "Out")["properties"].update(more={"type": "string"}),
        lambda a: schema(a, "Out")["required"].append("state"),
        lambda a: schema(a, "Out")["properties"]["state"]["enum"].remove("sent"),
    ],
)
def test_an_api_may_require_less_and_return_more(change: Change) -> None:
    assert list(openapi_breaks(API, changed(API, change))) == []


ASYNC: dict[str, Any] = {
    "channels": {"a.v1": {"address": "a.v1", "bindings": {"amqp": {"exchange": {"name": "a.events"}}}}},
    "operations": {"send.a.v1": {"action": "send"}},
    "components": {
        "messageTraits": {"ce": {"headers": {"properties": {"id": {"type": "string"}}}}},
        "messages": {
            "a.v1": {"contentType": "application/json", "traits": [{"$ref": "#/components/messageTraits/ce"}]}
        },
    },
}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda a: a["channels"].pop("a.v1"), "channel a.v1"),
        (lambda a: a["channels"]["a.v1"].update(address="b.v1"), "channel a.v1"),
        (lambda a: a["channels"]["a.v1"]["bindings"]["amqp"]["exchange"].update(name="b"), "channel a.v1"),
        (lambda a: a["operations"].clear(), "operation send.a.v1"),
        (lambda a: a["components"]["messageTraits"]["ce"]["headers"]["properties"].clear(), "headers of a.v1.id"),
        (lambda a: a["components"]["messages"]["a.v1"].update(contentType="text/plain"), "message a.v1"),
    ],
)
def test_a_description_of_events_breaks_for_its_subscribers(change: Change, where: str) -> None:
    assert [one.where for one in asyncapi_breaks(ASYNC, changed(ASYNC, change))] == [where]


def test_a_description_of_events_may_gain_some() -> None:
    assert list(asyncapi_breaks(ASYNC, changed(ASYNC, lambda a: a["channels"].update({"b.v1": {}})))) == []


def test_the_sentence_says_which_field_and_what_to_do(tmp_path: Path) -> None:
    now = tmp_path / "orders.order.placed.v1.schema.json"
    now.write_text(json.dumps(changed(EVENT, lambda e: e["properties"].pop("count"))))
    (sentence,) = compared("events/orders.order.placed.v1.schema.json", json.dumps(EVENT), now, "orders 0.1.0")
    assert sentence == (
        "contracts/events/orders.order.placed.v1.schema.json: count: is gone since orders 0.1.0. Leave "
        "orders.order.placed.v1 as it was (a new optional field is fine) and publish orders.order.placed.v2 too."
    )


@pytest.mark.parametrize("file", sorted(CONTRACTS.rglob("*.*")), ids=lambda file: file.name)
def test_an_unchanged_file_breaks_nothing(file: Path) -> None:
    assert list(compared(str(file.relative_to(CONTRACTS)), file.read_text(), file, "itself")) == []


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A checkout with one event of orders, whose last release is its only commit."""
    file = tmp_path / "contracts" / "events" / "orders.order.placed.v1.schema.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(EVENT))

    def git(*words: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        done = subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "release")
    (tmp_path / "deploy").mkdir()
    release = f'[orders]\nversion = "0.1.0"\ncommit = "{git("rev-parse", "HEAD")}"\n'
    (tmp_path / "deploy" / "releases.toml").write_text(release)
    return tmp_path


def test_the_released_contracts_are_compared_with_the_current_ones(released: Path) -> None:
    assert list(complaints(released)) == []
    file = released / "contracts" / "events" / "orders.order.placed.v1.schema.json"
    file.write_text(json.dumps(changed(EVENT, lambda e: e["properties"].pop("count"))))
    assert ["count: is gone" in complaint for complaint in complaints(released)] == [True]
    file.unlink()
    assert ["is gone since orders 0.1.0" in complaint for complaint in complaints(released)] == [True]


def test_only_a_retired_event_may_be_removed(released: Path) -> None:
    releases = released / "deploy" / "releases.toml"
    (released / "contracts" / "events" / "orders.order.placed.v1.schema.json").unlink()
    text = releases.read_text()
    releases.write_text(text + 'retired = ["orders.order.shipped.v1"]\n')
    assert ["is gone since orders 0.1.0" in complaint for complaint in complaints(released)] == [True]
    releases.write_text(text + 'retired = ["orders.order.placed.v1"]\n')
    assert list(complaints(released)) == []


def test_the_channel_of_a_retired_event_may_be_removed_with_it(tmp_path: Path) -> None:
    text = (CONTRACTS / "orders" / "asyncapi.yaml").read_text()
    document = yaml.safe_load(text)
    del document["channels"]["orders.order.placed.v1"], document["operations"]["send.orders.order.placed.v1"]
    now = tmp_path / "asyncapi.yaml"
    now.write_text(yaml.safe_dump(document))
    assert len(list(compared("orders/asyncapi.yaml", text, now, "itself"))) == 2
    assert list(compared("orders/asyncapi.yaml", text, now, "itself", ["orders.order.placed.v1"])) == []


def test_without_a_release_nothing_is_broken(tmp_path: Path) -> None:
    assert list(complaints(tmp_path)) == []


def test_for_a_release_with_a_missing_commit_the_error_says_what_to_do(released: Path) -> None:
    file = released / "deploy" / "releases.toml"
    file.write_text(f'[orders]\nversion = "0.1.0"\ncommit = "{"0" * 40}"\n')
    (complaint,) = complaints(released)
    assert "git fetch --unshallow" in complaint
