"""Who may do what, and what every response has."""

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from common.db.database import new_id
from common.testing.plugin import eventually
from orders.settings import Settings

UNKNOWN_ORDER = UUID(int=1)


async def test_everything_needs_a_token(shop: Any) -> None:
    for method, path in (
        ("GET", "/orders"),
        ("POST", "/orders"),
        ("GET", f"/orders/{UNKNOWN_ORDER}"),
        ("POST", f"/orders/{UNKNOWN_ORDER}/ship"),
        ("GET", "/products"),
        ("PUT", "/products/X"),
    ):
        answer = await shop.client.request(method, path, content=b"{", headers={"Content-Type": "text/plain"})
        assert shop.is_problem(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_another_persons_order_is_404(shop: Any) -> None:
    order = await shop.order(customer=new_id())
    for path in (f"/orders/{order['id']}", f"/orders/{order['id']}/events"):
        assert shop.is_problem(await shop.get(path), 404, "not_found")
    cancel = await shop.client.post(f"/orders/{order['id']}/cancel", headers=shop.bearer())
    assert shop.is_problem(cancel, 404, "not_found")
    assert (await shop.get("/orders")).json()["items"] == []
    refused = await shop.get(f"/orders?customer_id={order['customer_id']}")
    assert shop.is_problem(refused, 403, "forbidden")
    assert refused.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
    assert (await shop.get(f"/orders?customer_id={shop.customer}")).status_code == 200


async def test_customers_do_not_run_orders_or_the_catalogue(shop: Any) -> None:
    order = await shop.order()
    for step in ("confirm", "ship", "deliver"):
        answer = await shop.client.post(f"/orders/{order['id']}/{step}", content=b"{", headers=shop.bearer())
        assert shop.is_problem(answer, 403, "forbidden")
    answer = await shop.client.put("/products/LAMP-1", content=b"{", headers=shop.bearer())
    assert shop.is_problem(answer, 403, "forbidden")
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("role", ["staff", "admin"])
async def test_staff_see_all_orders_or_one_customers(shop: Any, role: str) -> None:
    other = new_id()
    mine, theirs = await shop.order(), await shop.order(customer=other)
    staff = shop.bearer(new_id(), roles=(role,))
    everyones = (await shop.client.get("/orders", headers=staff)).json()["items"]
    assert everyones == [theirs, mine]
    customers = (await shop.client.get(f"/orders?customer_id={other}", headers=staff)).json()["items"]
    assert customers == [theirs]
    assert (await shop.client.get(f"/orders/{mine['id']}", headers=staff)).json() == mine


async def test_a_token_narrowed_by_scope_does_what_its_scope_says(shop: Any) -> None:
    order = await shop.order()
    readonly = shop.bearer(scope="orders:read")
    assert (await shop.client.get(f"/orders/{order['id']}", headers=readonly)).status_code == 200
    for path in ("/orders", f"/orders/{order['id']}/cancel"):
        answer = await shop.client.post(path, headers=readonly)
        assert shop.is_problem(answer, 403, "insufficient_scope")
        assert 'scope="orders:write"' in answer.headers["WWW-Authenticate"]
    nothing = shop.bearer(scope="account")
    assert shop.is_problem(await shop.client.get("/orders", headers=nothing), 403, "insufficient_scope")
    staff = shop.bearer(roles=("staff",), scope="orders:read")
    assert shop.is_problem(await shop.client.put("/products/X", headers=staff), 403, "insufficient_scope")


async def test_a_machine_client_runs_orders_within_its_scopes_and_places_none(shop: Any) -> None:
    order = await shop.order()
    reader, writer = shop.client_bearer("orders:read"), shop.client_bearer("orders:write")
    assert (await shop.client.get("/orders", headers=reader)).json()["items"] == [order]
    confirm = f"/orders/{order['id']}/confirm"
    assert shop.is_problem(await shop.client.post(confirm, headers=reader), 403, "insufficient_scope")
    assert (await shop.client.post(confirm, headers=writer)).status_code == 200
    body = {"lines": [{"sku": "LAMP-1", "quantity": 1}]}
    assert shop.is_problem(await shop.client.post("/orders", json=body, headers=writer), 403, "forbidden")
    assert shop.is_problem(await shop.client.put("/products/X", headers=writer), 403, "forbidden")
    nobody = shop.client_bearer("notifications:read")
    assert shop.is_problem(await shop.client.get("/orders", headers=nobody), 403, "insufficient_scope")


async def test_the_service_is_healthy_and_ready_while_the_database_is_available(shop: Any) -> None:
    assert (await shop.client.get("/health")).json() == {"status": "ok"}
    ready = await shop.client.get("/health/ready")
    assert (ready.status_code, ready.json()["checks"]) == (200, {"postgres": "ok"})


async def test_every_response_has_its_process_time_and_request_id(shop: Any) -> None:
    for path in ("/orders", f"/orders/{UNKNOWN_ORDER}", "/nowhere"):
        answer = await shop.get(path, **{"X-Request-ID": "mine-1"})
        assert answer.headers["X-Request-ID"] == "mine-1"
        assert answer.headers["X-Process-Time"].endswith("s")


async def test_an_unavailable_database_is_a_503_and_the_service_recovers_without_a_restart(
    shop: Any, settings: Settings, postgres_server: str
) -> None:
    await shop.order()
    name = settings.database_url.get_secret_value().rpartition("/")[2]
    admin = await asyncpg.connect(postgres_server)
    try:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        lost = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1"
        await admin.execute(lost, name)
        for answer in (await shop.place(("LAMP-1", 1)), await shop.get("/orders")):
            assert shop.is_problem(answer, 503, "service_unavailable")
            assert answer.headers["Retry-After"]
    finally:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await admin.close()

    async def recovered() -> bool:
        answers = (await shop.place(("LAMP-1", 1)), await shop.get("/orders"))
        return all(answer.is_success for answer in answers)

    await eventually(recovered)
