"""The catalogue: staff change it, everyone who is signed in reads it."""

from typing import Any

import pytest

NOT_PRODUCTS: list[dict[str, Any]] = [
    {"name": ""},
    {"name": "x" * 201},
    {"name": " "},
    {"name": "Lamp\nBcc: all@example.com"},
    {"price": {"amount": -1, "currency": "EUR"}},
    {"price": {"amount": 10**12 + 1, "currency": "EUR"}},
    {"price": {"amount": 1.5, "currency": "EUR"}},
    {"price": {"amount": "1", "currency": "EUR"}},
    {"price": {"amount": 1, "currency": "eur"}},
    {"price": {"amount": 1, "currency": "EUR", "tax": 0}},
    {"price": 1},
    {"active": "yes"},
    {"sku": "LAMP-1"},
]


async def test_a_product_is_created_then_changed(shop: Any) -> None:
    created = await shop.stock("BULB")
    assert (created.status_code, created.headers["Location"]) == (201, "/products/BULB")
    changed = await shop.stock("BULB", name="Bulb", active=False)
    assert changed.status_code == 200
    product = (await shop.get("/products/BULB")).json()
    assert product == changed.json()
    assert product == {
        "sku": "BULB",
        "name": "Bulb",
        "price": {"amount": 4900, "currency": "EUR"},
        "active": False,
        "created_at": created.json()["created_at"],
        "updated_at": product["updated_at"],
    }


async def test_products_are_listed_by_sku_in_pages(shop: Any) -> None:
    for sku in ("b", "B", "a.1", "A_1"):
        await shop.stock(sku, active=sku != "b")
    first = (await shop.get("/products?limit=3")).json()
    rest = (await shop.get(f"/products?limit=3&cursor={first['next_cursor']}")).json()
    skus = [product["sku"] for product in first["items"] + rest["items"]]
    assert skus == ["A_1", "B", "LAMP-1", "a.1", "b"]
    on_sale = (await shop.get("/products?active=true")).json()["items"]
    assert [product["sku"] for product in on_sale] == skus[:-1]


async def test_a_product_out_of_bounds_is_refused(shop: Any, subtests: pytest.Subtests) -> None:
    for change in NOT_PRODUCTS:
        with subtests.test(**change):
            body = {"name": "Lamp", "price": {"amount": 1, "currency": "EUR"}, "active": True, **change}
            answer = await shop.client.put("/products/LAMP-1", json=body, headers=shop.staff_headers)
            assert shop.is_problem(answer, 422, "validation_error")
    assert (await shop.get("/products/LAMP-1")).json()["name"] == "Desk lamp"


async def test_a_sku_is_plain_text_of_bounded_length(shop: Any) -> None:
    body = {"name": "Lamp", "price": {"amount": 1, "currency": "EUR"}}
    for sku in ("-x", "a%20b", "x" * 65, "a%0A", "%C3%A9"):
        answer = await shop.client.put(f"/products/{sku}", json=body, headers=shop.staff_headers)
        assert shop.is_problem(answer, 422, "validation_error")
