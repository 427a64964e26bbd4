"""POST /orders."""

import asyncio
import hashlib
from typing import Any
from uuid import UUID

import pytest

from common.db.database import Database
from orders.models import Order

NOT_ORDERS: list[tuple[dict[str, Any], list[Any]]] = [
    ({}, ["body", "lines"]),
    ({"lines": []}, ["body", "lines"]),
    ({"lines": [{"sku": "LAMP-1", "quantity": 1}] * 101}, ["body", "lines"]),
    ({"lines": [{"sku": "LAMP-1"}]}, ["body", "lines", 0, "quantity"]),
    ({"lines": [{"sku": "LAMP-1", "quantity": 0}]}, ["body", "lines", 0, "quantity"]),
    ({"lines": [{"sku": "LAMP-1", "quantity": 1001}]}, ["body", "lines", 0, "quantity"]),
    ({"lines": [{"sku": "LAMP-1", "quantity": "1"}]}, ["body", "lines", 0, "quantity"]),
    ({"lines": [{"sku": "LAMP-1", "quantity": 1.0}]}, ["body", "lines", 0, "quantity"]),
    ({"lines": [{"sku": "LAMP-1", "quantity": True}]}, ["body", "lines", 0, "quantity"]),
    ({"lines": [{"sku": "", "quantity": 1}]}, ["body", "lines", 0, "sku"]),
    ({"lines": [{"sku": "A B", "quantity": 1}]}, ["body", "lines", 0, "sku"]),
    ({"lines": [{"sku": "LAMP-1\n", "quantity": 1}]}, ["body", "lines", 0, "sku"]),
    ({"lines": [{"sku": "LAMP-1", "quantity": 1, "unit_price": 0}]}, ["body", "lines", 0, "unit_price"]),
    ({"lines": [{"sku": "LAMP-1", "quantity": 1}], "total": 0}, ["body", "total"]),
    ({"lines": [{"sku": "LAMP-1", "quantity": 1}], "note": "x" * 1001}, ["body", "note"]),
]


async def test_an_order_is_created_with_its_address_and_its_version(shop: Any) -> None:
    answer = await shop.place(("LAMP-1", 3), note="Ring twice")
    assert answer.status_code == 201
    order = answer.json()
    assert answer.headers["Location"] == f"/orders/{order['id']}"
    assert answer.headers["ETag"] == '"1"'
    assert order == {
        "id": order["id"],
        "customer_id": str(shop.customer),
        "status": "placed",
        "lines": [
            {
                "sku": "LAMP-1",
                "name": "Desk lamp",
                "quantity": 3,
                "unit_price": {"amount": 4900, "currency": "EUR"},
            }
        ],
        "total": {"amount": 14700, "currency": "EUR"},
        "note": "Ring twice",
        "created_at": order["created_at"],
        "updated_at": order["created_at"],
    }
    assert UUID(order["id"]).version == 7
    assert order["created_at"].endswith("Z")
    assert (await shop.get(f"/orders/{order['id']}")).json() == order


async def test_an_invalid_body_is_refused_and_the_error_names_the_field(shop: Any, subtests: pytest.Subtests) -> None:
    for body, loc in NOT_ORDERS:
        with subtests.test(loc=loc):
            answer = await shop.client.post("/orders", json=body, headers=shop.bearer())
            assert shop.is_problem(answer, 422, "validation_error")
            assert [part["loc"] for part in answer.json()["errors"]] == [loc]
    assert (await shop.get("/orders")).json()["items"] == []


async def test_the_largest_order_with_a_note_of_commas_alone_is_placed(shop: Any) -> None:
    for note in ("," * 1000, "{" * 1000):
        assert (await shop.place(*[("LAMP-1", 1)] * 100, note=note)).status_code == 201


async def test_two_idempotency_keys_or_two_if_matches_are_400(shop: Any) -> None:
    keys = [*shop.bearer().items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    body = {"lines": [{"sku": "LAMP-1", "quantity": 1}]}
    assert shop.is_problem(await shop.client.post("/orders", json=body, headers=keys), 400, "bad_request")
    assert (await shop.get("/orders")).json()["items"] == []
    order = (await shop.place(("LAMP-1", 1))).json()
    tags = [*shop.bearer().items(), ("If-Match", '"1"'), ("If-Match", '"2"')]
    for action in ("cancel", "confirm"):
        path = f"/orders/{order['id']}/{action}"
        headers = tags if action == "cancel" else [*shop.bearer(roles=("staff",)).items(), *tags[-2:]]
        assert shop.is_problem(await shop.client.post(path, headers=headers), 400, "bad_request")
    joined = {**shop.bearer(), "If-Match": '"1","2"'}  # as Envoy passes two on
    answer = await shop.client.post(f"/orders/{order['id']}/cancel", headers=joined)
    assert shop.is_problem(answer, 400, "bad_request")


@pytest.mark.parametrize(
    ("body", "hashed"),
    [
        (
            {"lines": [{"quantity": 2, "sku": "LAMP-1"}]},
            '{"lines":[{"sku":"LAMP-1","quantity":2}],"note":null}',
        ),
        (
            {"note": "Ring twice, é", "lines": [{"sku": "LAMP-1", "quantity": 2}]},
            '{"lines":[{"sku":"LAMP-1","quantity":2}],"note":"Ring twice, é"}',
        ),
    ],
)
async def test_the_hash_of_a_request_is_the_same_in_every_release(
    shop: Any, database: Database, body: Any, hashed: str
) -> None:
    """In 0.1.0 it was that of the body with all defaults; a rollout may take a retry to either release."""
    answer = await shop.client.post("/orders", json=body, headers={**shop.bearer(), "Idempotency-Key": "k"})
    async with database.transaction() as session:
        order = await session.get_one(Order, UUID(answer.json()["id"]))
    assert order.request_hash == hashlib.sha256(hashed.encode()).digest()


async def test_an_unknown_or_inactive_product_is_refused_by_name(shop: Any) -> None:
    await shop.stock("GONE", active=False)
    unknown = await shop.place(("LAMP-1", 1), ("NONE", 1))
    assert shop.is_problem(unknown, 422, "unknown_sku")
    assert unknown.json()["errors"] == [
        {"loc": ["body", "lines", 1, "sku"], "msg": "No product has this SKU", "code": "unknown_sku"}
    ]
    assert shop.is_problem(await shop.place(("GONE", 1)), 422, "inactive_product")


async def test_one_order_is_in_one_currency(shop: Any) -> None:
    await shop.stock("IMPORT", price={"amount": 1, "currency": "USD"})
    assert shop.is_problem(await shop.place(("LAMP-1", 1), ("IMPORT", 1)), 422, "mixed_currencies")


async def test_a_total_beyond_exact_integers_is_refused(shop: Any) -> None:
    await shop.stock("GOLD", price={"amount": 10**12, "currency": "EUR"})
    assert shop.is_problem(await shop.place(*[("GOLD", 1000)] * 10), 422, "total_too_large")


async def test_the_same_request_with_the_same_key_gets_the_same_answer_again(shop: Any) -> None:
    first = await shop.place(("LAMP-1", 1), note="x", **{"Idempotency-Key": "k"})
    await shop.act(first.json()["id"], "confirm")
    again = await shop.place(("LAMP-1", 1), note="x", **{"Idempotency-Key": "k"})
    assert again.status_code == first.status_code == 201
    assert again.content == first.content
    assert all(again.headers[name] == first.headers[name] for name in ("Location", "ETag"))
    assert len((await shop.get("/orders")).json()["items"]) == 1


async def test_another_request_with_the_same_key_is_refused(shop: Any) -> None:
    await shop.place(("LAMP-1", 1), **{"Idempotency-Key": "k"})
    other = await shop.place(("LAMP-1", 2), **{"Idempotency-Key": "k"})
    assert shop.is_problem(other, 422, "idempotency_key_reused")


async def test_twenty_requests_at_once_with_one_key_make_one_order(shop: Any) -> None:
    answers = await asyncio.gather(*(shop.place(("LAMP-1", 1), **{"Idempotency-Key": "k"}) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    for answer in answers:
        assert answer.status_code == 201 or shop.is_problem(answer, 409, "request_in_flight")
    assert len((await shop.get("/orders")).json()["items"]) == 1


async def test_an_invalid_key_is_refused(shop: Any) -> None:
    for key in ("", "k" * 256, "a b", "schlüssel".encode()):
        answer = await shop.place(("LAMP-1", 1), **{"Idempotency-Key": key})
        assert shop.is_problem(answer, 422, "validation_error")
