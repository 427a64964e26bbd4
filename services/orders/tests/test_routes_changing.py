"""Changes of an order's state by staff and customers, over HTTP."""

import asyncio
from typing import Any
from uuid import UUID

UNKNOWN_ORDER = UUID(int=1)


async def test_staff_take_an_order_through_its_states(shop: Any) -> None:
    order = await shop.order()
    for version, (step, status) in enumerate(
        (("confirm", "confirmed"), ("ship", "shipped"), ("deliver", "delivered")), start=2
    ):
        answer = await shop.act(order["id"], step)
        assert (answer.status_code, answer.json()["status"]) == (200, status)
        assert answer.headers["ETag"] == f'"{version}"'
        assert answer.json()["lines"] == order["lines"]
        assert shop.is_problem(await shop.act(order["id"], step), 409, "invalid_transition")


async def test_customers_cancel_while_the_order_is_placed_and_staff_until_it_is_shipped(shop: Any) -> None:
    mine, too_late = await shop.order(), await shop.order()
    answer = await shop.client.post(f"/orders/{mine['id']}/cancel", json={"reason": "x"}, headers=shop.bearer())
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    await shop.act(too_late["id"], "confirm")
    refused = await shop.client.post(f"/orders/{too_late['id']}/cancel", headers=shop.bearer())
    assert shop.is_problem(refused, 409, "invalid_transition")
    assert (await shop.act(too_late["id"], "cancel")).json()["status"] == "cancelled"


async def test_a_change_may_depend_on_the_version_that_was_seen(shop: Any) -> None:
    order = await shop.order()
    for stale in ('"2"', 'W/"1"', '"x"', "1", ""):
        assert shop.is_problem(
            await shop.act(order["id"], "confirm", **{"If-Match": stale}), 412, "precondition_failed"
        )
    assert (await shop.act(order["id"], "confirm", **{"If-Match": '"9", "1"'})).status_code == 200
    assert (await shop.act(order["id"], "ship", **{"If-Match": "*"})).status_code == 200
    stale = await shop.act(order["id"], "deliver", **{"If-Match": '"1"'})
    assert shop.is_problem(stale, 412, "precondition_failed")


async def test_of_two_confirmations_at_once_one_succeeds(shop: Any) -> None:
    order = await shop.order()
    answers = await asyncio.gather(*(shop.act(order["id"], "confirm") for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert len((await shop.get(f"/orders/{order['id']}/events")).json()["items"]) == 2


async def test_a_shipment_needs_carrier_and_tracking_number(shop: Any) -> None:
    order, number = await shop.order(), {"tracking_number": "y"}
    for body in ({}, {"carrier": "x"}, {"carrier": ""} | number, {"a": 1}, {"carrier": "x\ny"} | number):
        assert shop.is_problem(await shop.act(order["id"], "ship", json=body), 422, "validation_error")


async def test_an_unknown_order_cannot_be_changed(shop: Any) -> None:
    for step in ("cancel", "confirm", "ship", "deliver"):
        assert shop.is_problem(await shop.act(str(UNKNOWN_ORDER), step), 404, "not_found")
