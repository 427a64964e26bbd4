"""Every feature that a FastAPI guide teaches, as a client of this system sees it."""

import re
from typing import Any

import httpx
import pytest

SERVICES = ("auth", "users", "orders", "notifier")


async def test_validated_routes_and_response_models(customer: Any) -> None:
    me = (await customer.get("/me")).json()
    assert set(me) == {
        "id", "name", "email", "email_verified", "pending_email", "role", "status", "age", "created_at", "updated_at",
    }  # fmt: skip
    order = (await customer.order()).json()
    assert set(order) == {
        "id", "customer_id", "status", "lines", "total", "note", "created_at", "updated_at",
    }  # fmt: skip


async def test_creation_responds_201_with_a_location_that_can_be_read(customer: Any) -> None:
    answer = await customer.order()
    assert answer.status_code == 201
    assert (await customer.get(answer.headers["Location"])).json() == answer.json()


async def test_an_unknown_resource_is_a_404(customer: Any) -> None:
    answer = await customer.get("/orders/01890000-0000-7000-8000-000000000000")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    nowhere = await customer.get("/nowhere")
    assert nowhere.status_code == 404
    assert nowhere.json()["request_id"] == nowhere.headers["X-Request-ID"]


async def test_an_invalid_body_is_a_422_with_the_location(customer: Any) -> None:
    body = {"lines": [{"sku": "E2E-LAMP", "quantity": 0}]}
    answer = await customer.client.post("/orders", json=body, headers=customer.bearer)
    (error,) = answer.json()["errors"]
    assert answer.status_code == 422
    assert error["loc"][-3:] == ["lines", 0, "quantity"]
    assert {"msg", "code"} <= error.keys()


async def test_the_token_login_form_works_as_swaggers_authorize_button_sends_it(customer: Any) -> None:
    form = {"grant_type": "password", "username": customer.email, "password": customer.password}
    answer = await customer.client.post("/token", data=form)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["token_type"].lower() == "bearer"
    assert {"access_token", "expires_in", "refresh_token", "scope"} <= answer.json().keys()
    schema = (await customer.client.get("/openapi/orders.json")).json()
    (scheme,) = schema["components"]["securitySchemes"].values()
    assert scheme["flows"]["password"]["tokenUrl"] == "/token"


async def test_a_wrong_password_is_an_oauth_error(customer: Any) -> None:
    form = {"grant_type": "password", "username": customer.email, "password": "not the password"}
    answer = await customer.client.post("/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


async def test_me_is_the_person_of_the_bearer_token(customer: Any, gateway: Any) -> None:
    me = (await customer.get("/me")).json()
    assert (me["id"], me["email"], me["role"]) == (customer.id, customer.email, "user")
    assert (await gateway.get("/me")).status_code == 401


async def test_a_refresh_token_yields_a_new_access_token(customer: Any) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": customer.tokens["refresh_token"]}
    answer = await customer.client.post("/token", data=form)
    assert answer.status_code == 200
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert (await customer.client.get("/me", headers=headers)).status_code == 200


async def test_cors_allows_only_the_configured_origin(gateway: Any) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    answer = await gateway.options("/orders", headers={"Origin": "https://shop.example", **ask})
    assert answer.status_code in {200, 204}
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    stranger = await gateway.options("/orders", headers={"Origin": "https://evil.example", **ask})
    assert "Access-Control-Allow-Origin" not in stranger.headers
    for path in ("/orders", "/nowhere"):
        refused = await gateway.get(path, headers={"Origin": "https://shop.example"})
        assert refused.headers.get_list("Access-Control-Allow-Origin") == ["https://shop.example"]
        assert "Origin" in refused.headers["Vary"]


async def test_every_response_has_its_process_time_and_request_id(customer: Any) -> None:
    for path in ("/me", "/orders", "/notifications", "/products", "/orders/x", "/sessions"):
        answer = await customer.get(path)
        assert re.fullmatch(r"\d+\.\d{3}s", answer.headers["X-Process-Time"])
        assert answer.headers["Server-Timing"]
        assert answer.headers["X-Request-ID"]
        assert not re.search(r"uvicorn|envoy|\d\.\d", answer.headers.get("Server", ""))


async def test_a_valid_request_id_of_the_client_is_kept(customer: Any) -> None:
    mine = await customer.client.get("/me", headers={**customer.bearer, "X-Request-ID": "my-id-1"})
    assert mine.headers.get_list("X-Request-ID") == ["my-id-1"]
    odd = await customer.client.get("/me", headers={**customer.bearer, "X-Request-ID": "a b<script>"})
    assert odd.headers["X-Request-ID"] != "a b<script>"


async def test_health_endpoints_exist_outside_the_schema(gateway: Any, stack: Any) -> None:
    assert (await gateway.get("/health")).json() == {"status": "ok"}
    for name in SERVICES:
        schema = (await gateway.get(f"/openapi/{name}.json")).json()
        assert not [path for path in schema["paths"] if path.startswith(("/health", "/metrics", "/internal"))]
        async with httpx.AsyncClient(base_url=stack.status["services"][name]["url"]) as service:
            assert (await service.get("/health")).json() == {"status": "ok"}
            assert (await service.get("/health/live")).status_code == 200
            assert (await service.get("/health/ready")).status_code == 200
            assert "# TYPE" in (await service.get("/metrics")).text


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/internal/revocations", "/internal/x"])
async def test_the_gateway_exposes_no_internal_path(gateway: Any, path: str) -> None:
    for variant in (path, "/" + path, f"/orders/..{path}", path.replace("/", "/%2e/", 1)):
        assert (await gateway.get(variant)).status_code in {400, 404}


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("page", ["docs", "redoc"])
async def test_the_documentation_needs_no_internet(gateway: Any, page: str, name: str) -> None:
    answer = await gateway.get(f"/{page}/{name}")
    assert answer.status_code == 200
    assert "text/html" in answer.headers["Content-Type"]
    links = re.findall(r"""(?:src|href)=["']([^"']+)["']""", answer.text)
    assert links
    for link in links:
        if link.startswith("data:"):
            continue
        assert link.startswith("/"), link
        assert (await gateway.get(link)).status_code == 200, link
    assert f"/openapi/{name}.json" in answer.text
    listing = (await gateway.get("/docs")).text
    assert f"/docs/{name}" in listing


async def test_lists_are_paged_by_cursor(customer: Any) -> None:
    placed = [(await customer.order()).json()["id"] for _ in range(5)]
    first = (await customer.get("/orders?limit=2")).json()
    second = (await customer.get(f"/orders?limit=2&cursor={first['next_cursor']}")).json()
    third = (await customer.get(f"/orders?limit=2&cursor={second['next_cursor']}")).json()
    seen = [item["id"] for page in (first, second, third) for item in page["items"]]
    assert sorted(seen) == sorted(placed)
    assert third["next_cursor"] is None


async def test_an_idempotency_key_creates_one_order(customer: Any) -> None:
    first = await customer.order(2, **{"Idempotency-Key": "k-1"})
    again = await customer.order(2, **{"Idempotency-Key": "k-1"})
    assert (again.status_code, again.json()) == (201, first.json())
    other = await customer.order(3, **{"Idempotency-Key": "k-1"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len((await customer.get("/orders")).json()["items"]) == 1
