"""Reading orders over HTTP: lists, one order, its timeline."""

from typing import Any
from uuid import UUID

from common.web.pagination import encode_cursor

UNKNOWN_ORDER = UUID(int=1)


async def test_orders_are_listed_newest_first_in_pages(shop: Any) -> None:
    placed = [(await shop.order())["id"] for _ in range(5)]
    seen, cursor = [], ""
    while cursor is not None:
        page = (await shop.get(f"/orders?limit=2{cursor and '&cursor=' + cursor}")).json()
        seen += [order["id"] for order in page["items"]]
        cursor = page["next_cursor"]
    assert seen == placed[::-1]


async def test_a_list_shows_orders_as_they_are_shown_alone(shop: Any) -> None:
    order = await shop.order()
    assert (await shop.get("/orders")).json() == {"items": [order], "next_cursor": None}


async def test_orders_are_listed_by_status(shop: Any) -> None:
    first, second = await shop.order(), await shop.order()
    await shop.act(first["id"], "confirm")
    for status, expected in (("placed", second), ("confirmed", first)):
        items = (await shop.get(f"/orders?status={status}")).json()["items"]
        assert [item["id"] for item in items] == [expected["id"]]
    assert shop.is_problem(await shop.get("/orders?status=lost"), 422, "validation_error")


async def test_a_made_up_cursor_is_invalid(shop: Any) -> None:
    order = await shop.order()
    for path, cursors in {
        "/orders": (["x"], ["1", "2"], []),
        f"/orders/{order['id']}/events": (["x"], ["0"], [str(2**31)], ["\x00"], ["٣"]),
        "/products": (["a b"], ["\x00"], ["\ud800"], ["A", "B"]),
    }.items():
        for values in cursors:
            answer = await shop.get(f"{path}?cursor={encode_cursor(path, values)}")
            assert shop.is_problem(answer, 400, "invalid_cursor")


async def test_a_cursor_of_another_list_is_invalid(shop: Any) -> None:
    orders = [await shop.order() for _ in range(2)]
    for order in orders:
        await shop.act(order["id"], "confirm")
    first, other = (f"/orders/{order['id']}/events" for order in orders)
    for path, elsewhere in (("/orders", "/products"), (first, other)):
        cursor = (await shop.get(f"{path}?limit=1")).json()["next_cursor"]
        assert (await shop.get(f"{path}?cursor={cursor}")).json()["items"]
        assert shop.is_problem(await shop.get(f"{elsewhere}?cursor={cursor}"), 400, "invalid_cursor")


async def test_an_order_that_the_client_has_already_is_a_304(shop: Any) -> None:
    order = await shop.order()
    for known in ('"1"', 'W/"1"', '"7", "1"', "*"):
        answer = await shop.get(f"/orders/{order['id']}", **{"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", '"1"')
        assert answer.headers.get_list("Cache-Control") == ["private, no-cache"]
    await shop.act(order["id"], "confirm")
    answer = await shop.get(f"/orders/{order['id']}", **{"If-None-Match": '"1"'})
    assert (answer.status_code, answer.json()["status"], answer.headers["ETag"]) == (200, "confirmed", '"2"')


async def test_the_timeline_lists_events_oldest_first_in_pages(shop: Any) -> None:
    order = await shop.order()
    for step in ("confirm", "ship", "deliver"):
        await shop.act(order["id"], step)
    whole = (await shop.get(f"/orders/{order['id']}/events")).json()
    assert [item["type"] for item in whole["items"]] == [
        f"orders.order.{state}.v1" for state in ("placed", "confirmed", "shipped", "delivered")
    ]
    assert whole["items"][2]["data"]["tracking_number"] == "PX-42"
    assert whole["next_cursor"] is None
    first = (await shop.get(f"/orders/{order['id']}/events?limit=3")).json()
    rest = (await shop.get(f"/orders/{order['id']}/events?cursor={first['next_cursor']}")).json()
    assert first["items"] + rest["items"] == whole["items"]


async def test_what_does_not_exist_is_404(shop: Any) -> None:
    for path in (f"/orders/{UNKNOWN_ORDER}", f"/orders/{UNKNOWN_ORDER}/events", "/products/NONE"):
        assert shop.is_problem(await shop.get(path), 404, "not_found")
    assert shop.is_problem(await shop.get("/orders/not-an-id"), 422, "validation_error")
