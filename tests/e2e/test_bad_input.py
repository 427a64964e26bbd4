"""Hostile and careless clients through the gateway: problem responses, no 5xx, nothing half-written."""

import base64
import gzip
import json
from typing import Any

import pytest

PLACE = {"lines": [{"sku": "E2E-LAMP", "quantity": 1}]}


def is_problem(answer: Any, status: int, code: str | None = None) -> bool:
    problem = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "request_id"} <= problem.keys()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert not {"Traceback", "SELECT", "asyncpg"} & set(answer.text.split())
    return code is None or problem["code"] == code


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b'{"lines": [}', 400),
        (b"\xff\xfe{}", 400),
        (b'{"lines": NaN}', 400),
        (b'{"lines": [], "lines": []}', 400),
        (json.dumps({**PLACE, **{f"unknown{number}": 0 for number in range(50_000)}}).encode(), 400),
        (b'{"lines": [' + b"{}," * 300_000 + b"{}]}", 400),
        (b"[" * 100_000, 400),
        (b"null", 422),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"lines": []}', 422),
        (json.dumps({**PLACE, "price": 1}).encode(), 422),
        (json.dumps({"lines": [{"sku": "E2E-LAMP", "quantity": 1, "unit_price": 0}]}).encode(), 422),
        (json.dumps({"lines": [{"sku": "E2E-LAMP", "quantity": 0}]}).encode(), 422),
        (json.dumps({"lines": [{"sku": "E2E-LAMP", "quantity": 1001}]}).encode(), 422),
        (json.dumps({"lines": [{"sku": "E2E-LAMP", "quantity": 10**30}]}).encode(), 422),
        (json.dumps({"lines": [{"sku": "E2E-LAMP", "quantity": "1"}]}).encode(), 422),
        (json.dumps({"lines": [{"sku": "E2E-LAMP", "quantity": 1.5}]}).encode(), 422),
        (json.dumps({"lines": [{"sku": "E2E-LAMP", "quantity": True}]}).encode(), 422),
        (json.dumps({"lines": [{"sku": "NO-SUCH", "quantity": 1}]}).encode(), 422),
        (json.dumps({"lines": [{"sku": "A\x00B", "quantity": 1}]}).encode(), 422),
        (json.dumps({**PLACE, "note": "nul \x00"}).encode(), 422),
        (rb'{"lines": [{"sku": "E2E-LAMP", "quantity": 1}], "note": "\ud800"}', 422),
        (json.dumps({**PLACE, "note": "x" * 100_000}).encode(), 422),
        (json.dumps({"lines": [{"sku": "E2E-LAMP", "quantity": 1}] * 101}).encode(), 422),
    ],
)
async def test_an_invalid_order_is_refused_and_stores_nothing(customer: Any, body: bytes, status: int) -> None:
    headers = {**customer.bearer, "Content-Type": "application/json"}
    answer = await customer.client.post("/orders", content=body, headers=headers)
    assert is_problem(answer, status)
    if status == 422:
        assert answer.json()["code"] == "unknown_sku" or answer.json()["errors"]
    assert (await customer.get("/orders")).json()["items"] == []


async def test_a_body_over_a_mebibyte_is_too_large(customer: Any) -> None:
    headers = {**customer.bearer, "Content-Type": "application/json"}
    body = json.dumps({**PLACE, "note": "x" * 2_000_000})
    answer = await customer.client.post("/orders", content=body, headers=headers)
    assert is_problem(answer, 413, "payload_too_large")

    async def endless() -> Any:
        for _ in range(40):
            yield b" " * 65536

    answer = await customer.client.post("/orders", content=endless(), headers=headers)
    assert is_problem(answer, 413, "payload_too_large")


async def test_another_content_type_is_unsupported(customer: Any) -> None:
    for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "application/json-patch+json"):
        headers = {**customer.bearer, "Content-Type": kind}
        answer = await customer.client.post("/orders", content=json.dumps(PLACE), headers=headers)
        assert is_problem(answer, 415, "unsupported_media_type")


async def test_an_encoded_body_is_unsupported(customer: Any) -> None:
    headers = {**customer.bearer, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await customer.client.post("/orders", content=gzip.compress(json.dumps(PLACE).encode()), headers=headers)
    assert is_problem(answer, 415, "unsupported_media_type")


async def test_a_header_that_may_come_once_and_comes_twice_is_refused(customer: Any) -> None:
    twice = [*customer.bearer.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert is_problem(await customer.client.post("/orders", json=PLACE, headers=twice), 400, "bad_request")
    assert (await customer.get("/orders")).json()["items"] == []
    order = (await customer.order()).json()
    twice = [*customer.bearer.items(), ("If-Match", '"1"'), ("If-Match", '"2"')]
    answer = await customer.client.post(f"/orders/{order['id']}/cancel", headers=twice)
    assert is_problem(answer, 400, "bad_request")


@pytest.mark.parametrize("path", ["/orders", "/products", "/notifications", "/sessions", "/webhooks"])
async def test_nul_in_a_query_is_refused(customer: Any, path: str) -> None:
    assert is_problem(await customer.get(f"{path}?cursor=%00"), 400, "invalid_cursor")
    assert (await customer.get(f"{path}?limit=%00")).status_code == 422


@pytest.mark.parametrize("url", ["https://xn--i-7iq.ws/", "https://xn--/", "https://[fe80::1%25eth0]/"])
async def test_a_webhook_url_whose_host_cannot_be_read_is_refused(customer: Any, url: str) -> None:
    body = {"url": url, "event_types": ["orders.order.placed.v1"]}
    answer = await customer.client.post("/webhooks", json=body, headers=customer.bearer)
    assert is_problem(answer, 422, "invalid_webhook_url")


async def test_authorisation_comes_before_the_body_and_after_the_method(gateway: Any) -> None:
    answer = await gateway.post("/orders", content=b"{", headers={"Content-Type": "application/json"})
    assert is_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "error" not in answer.headers["WWW-Authenticate"]
    assert is_problem(await gateway.put("/orders"), 405)


def _forged(token: str, **changes: Any) -> str:
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, **changes}).encode()).decode().rstrip("=")
    return f"{header}.{forged}.{signature}"


async def test_a_token_that_auth_did_not_issue_is_refused_everywhere(customer: Any) -> None:
    good = customer.tokens["access_token"]
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').decode().rstrip("=")
    bad = [
        "x",
        "a.b.c",
        good[:-4] + "AAAA",
        _forged(good, roles=["admin"]),
        _forged(good, exp=1),
        f"{none}.{good.split('.')[1]}.",
        good + "x" * 5000,
    ]
    for path in ("/me", "/orders", "/notifications", "/sessions"):
        for token in bad:
            answer = await customer.client.get(path, headers={"Authorization": f"Bearer {token}"})
            assert is_problem(answer, 401), (path, token[:20])
            assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


async def test_two_authorization_headers_are_refused(customer: Any) -> None:
    headers = [("Authorization", customer.bearer["Authorization"]), ("Authorization", "Bearer other")]
    answer = await customer.client.get("/orders", headers=headers)
    assert answer.status_code in {400, 401}


async def test_another_persons_order_is_not_found(customer: Any, sign_up: Any) -> None:
    order = (await customer.order()).json()
    stranger = await sign_up()
    assert is_problem(await stranger.get(f"/orders/{order['id']}"), 404)
    assert is_problem(await stranger.get(f"/orders/{order['id']}/events"), 404)
    cancel = await stranger.client.post(f"/orders/{order['id']}/cancel", json={}, headers=stranger.bearer)
    assert is_problem(cancel, 404)
    assert (await customer.get(f"/orders/{order['id']}")).json()["status"] == "placed"


async def test_people_cannot_give_themselves_a_role(customer: Any, gateway: Any) -> None:
    body = {"name": "Eve", "email": "eve@example.com", "password": "correct horse battery", "role": "admin"}
    assert is_problem(await gateway.post("/users", json=body), 422)
    me = await customer.client.patch("/me", json={"role": "admin"}, headers=customer.bearer)
    assert is_problem(me, 422)
    other = await customer.client.patch(f"/users/{customer.id}", json={"role": "admin"}, headers=customer.bearer)
    assert is_problem(other, 403)
    put = await customer.client.put("/products/X", json={}, headers=customer.bearer)
    assert is_problem(put, 403)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=-1", "status=lost", "limit=99999999999999999999"]
)
async def test_a_query_out_of_bounds_is_refused(customer: Any, query: str) -> None:
    assert is_problem(await customer.get(f"/orders?{query}"), 422)


@pytest.mark.parametrize("cursor", ["x", "%00", "e30", "A" * 5000, "%F0%9F%92%A9"])
async def test_a_cursor_that_we_did_not_issue_is_invalid(customer: Any, cursor: str) -> None:
    answer = await customer.get(f"/orders?cursor={cursor}")
    assert is_problem(answer, 400, "invalid_cursor")


@pytest.mark.parametrize(
    "path", ["/orders/%00", "/orders/not-a-uuid", "/products/%00", "/users/x", "/notifications/x/read"]
)
async def test_an_invalid_id_is_refused(customer: Any, path: str) -> None:
    method = "POST" if path.endswith("read") else "GET"
    answer = await customer.client.request(method, path, headers=customer.bearer)
    assert answer.status_code in {400, 404, 422}
    assert is_problem(answer, answer.status_code)


@pytest.mark.parametrize(
    "change",
    [
        {"email": "no-at-sign"},
        {"email": "a@b"},
        {"email": "\u0430da@example.com"},
        {"email": "a@example.com\r\nBcc: b@example.com"},
        {"password": "short"},
        {"password": "p" * 129},
        {"password": "password1234"},
        {"name": ""},
        {"name": "n" * 101},
        {"name": "nul\x00"},
        {"age": 0},
        {"age": 150},
        {"age": "12"},
    ],
)
async def test_a_sign_up_out_of_bounds_is_refused_without_echoing_the_password(gateway: Any, change: Any) -> None:
    body = {"name": "Bob", "email": "bob@example.com", "password": "quite a long pass phrase", "age": 30}
    answer = await gateway.post("/users", json={**body, **change})
    assert is_problem(answer, 422)
    assert "pass phrase" not in answer.text
    assert change.get("password", "-----") not in answer.text or change.get("password") == "short"
