"""The real Envoy with the real configuration, in front of a service that answers with the request it received."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from common.testing.plugin import eventually
from waybill_dev.base.state import LOOPBACK
from waybill_dev.servers.gateway import Endpoint, Gateway

from .conftest import ORIGIN

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def client(echoing: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=echoing.url(), timeout=10) as http:
        yield http


def sent(answer: httpx.Response) -> dict[str, str]:
    """The headers that the service received. None of them came twice."""
    assert answer.status_code == 200, answer.text
    pairs: list[list[str]] = answer.json()["headers"]
    headers = {pair[0]: pair[1] for pair in pairs}
    assert len(headers) == len(pairs)
    return headers


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "server" not in answer.headers
    content: dict[str, Any] = answer.json()
    assert content["status"] == status
    assert content["code"] == code
    assert content["request_id"] == answer.headers["X-Request-ID"]
    assert {"type", "title", "detail", "instance"} <= content.keys()
    return content


async def test_the_gateway_answers_for_its_own_health_and_lists_the_documentation(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).json() == {"status": "ok"}
    page = await client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "/docs/orders" in page.text


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/orders?limit=3", "/orders?limit=3"),
        ("/orders/1/cancel", "/orders/1/cancel"),
        ("/docs/orders", "/docs"),
        ("/docs/orders/assets/ui.js", "/docs/assets/ui.js"),
        ("/redoc/users", "/redoc"),
        ("/openapi/auth.json", "/openapi.json"),
        ("/.well-known/jwks.json", "/.well-known/jwks.json"),
        ("//orders//1", "/orders/1"),
    ],
)
async def test_a_public_path_reaches_its_service(client: httpx.AsyncClient, path: str, target: str) -> None:
    answer = await client.get(f"{client.base_url}{path}" if path.startswith("//") else path)
    assert answer.json()["target"] == target


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/health/live",
        "/health/ready",
        "/internal/revocations",
        "/ordersx",
        "/orders/../metrics",
        "/orders/./1",
        "/orders/..",
        "/docs/orders/../../metrics?a=/../b",
        "//metrics",
        "/openapi.json",
        "/",
    ],
)
async def test_nothing_else_reaches_a_service(echoing: Gateway, path: str) -> None:
    # A raw request, because httpx would normalise the path.
    status, headers, body = await raw(echoing.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status == 404
    assert json.loads(body)["code"] == "not_found"
    assert json.loads(body)["request_id"] == headers["x-request-id"]


@pytest.mark.parametrize(
    "path",
    [
        *("/orders/%2e%2e/metrics", "/orders/.%2E/users", "/orders/%2e/1", "/orders/%2e%2e", "/%2e%2e/orders"),
        *("/orders/..%2fmetrics", "/orders/..%2f..%2fusers", "/orders%2f..%2f/internal/revocations", "/orders%2F1"),
        *("/orders/..%5c..%5cusers", "/orders/%5C1", "/orders/%00"),
    ],
)
async def test_an_escaped_slash_or_dot_segment_is_malformed(echoing: Gateway, path: str) -> None:
    status, headers, body = await raw(echoing.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert json.loads(body)["code"] == "bad_request"
    assert json.loads(body)["request_id"] == headers["x-request-id"]


@pytest.mark.parametrize(
    "path", ["/orders/a.b", "/orders/...", "/orders/1?next=/../%2e%2e%2f", "/orders/%252e", "/orders/.a"]
)
async def test_any_other_dot_reaches_the_service_as_it_is(echoing: Gateway, path: str) -> None:
    status, _, body = await raw(echoing.port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, json.loads(body)["target"]) == (200, path)


@pytest.mark.parametrize("offer", ["TLS/1.2", "tls/1.3", "h2c", "H2C", "websocket", "WebSocket, TLS/1.2", "x/1"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_offer_to_upgrade_is_ignored(echoing: Gateway, offer: str, method: str) -> None:
    """Apache HttpClient 5.4, so Spring Boot 3.4, offers TLS/1.2 with every request over http."""
    body = "Content-Length: 3\r\n\r\nabc" if method == "POST" else "\r\n"
    head = f"{method} /orders HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {offer}\r\n"
    status, headers, answer = await raw(echoing.port, head + body)
    assert status == 200
    assert json.loads(answer)["length"] == (3 if method == "POST" else 0)
    assert "upgrade" not in headers | dict(json.loads(answer)["headers"])


async def raw(port: int, request: str) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(request.encode())
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().rstrip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers["content-length"]))
    writer.close()
    return int(first.split()[1]), headers, body


async def test_a_service_sees_the_peers_address_and_no_header_in_which_callers_name_themselves(
    client: httpx.AsyncClient,
) -> None:
    claims = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Host": "evil.example",
        "X-Real-IP": "203.0.113.9",
        "Forwarded": "for=203.0.113.9",
        "X-User-Id": "1",
        "X-Envoy-Retry-On": "5xx",
        "X-Waybill-Gateway": "0",
    }
    headers = sent(await client.get("/orders", headers=claims))
    assert headers["x-forwarded-for"] == LOOPBACK
    assert headers["x-waybill-gateway"] == "1"
    assert not {"x-forwarded-host", "x-real-ip", "forwarded", "x-user-id", "x-envoy-retry-on"} & headers.keys()


async def test_the_callers_network_is_that_of_the_peers_address(echoing: Gateway) -> None:
    transport = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx.AsyncClient(base_url=echoing.url(), transport=transport) as neighbour:
        assert sent(await neighbour.get("/orders"))["x-forwarded-for"] == "127.0.0.2"


async def test_a_well_formed_request_id_is_kept_and_any_other_replaced(client: httpx.AsyncClient) -> None:
    assert sent(await client.get("/orders", headers={"X-Request-ID": "order-7.a_b"}))["x-request-id"] == "order-7.a_b"
    for bad in ("has space", "x" * 129, "semi;colon", '"quoted"'):
        replaced = sent(await client.get("/orders", headers={"X-Request-ID": bad}))["x-request-id"]
        assert replaced != bad
        assert len(replaced) == 36
    problem(await client.get("/nothing", headers={"X-Request-ID": "mine"}), 404, "not_found")


@pytest.mark.parametrize(
    ("request_head", "expected", "title"),
    [
        ("GET /orders/%00 HTTP/1.1\r\nHost: x", 400, "Bad Request"),
        ("GET /orders HTTP/1.1", 400, "Bad Request"),
        ("GET /orders HTTP/1.1\r\nHost: x\r\nHost: y", 400, "Bad Request"),  # RFC 9112 §3.2
        ("HELLO", 400, "Bad Request"),
        ("POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4", 400, "Bad Request"),
        ("POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno size", 400, "Bad Request"),
        ("CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443", 405, "Method Not Allowed"),
        ("GET /orders HTTP/1.0\r\nHost: x", 426, "Upgrade Required"),
        (f"GET /orders HTTP/1.1\r\nHost: x\r\nX-Long: {'x' * 70_000}", 431, "Request Header Fields Too Large"),
        ("POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked", 501, "Not Implemented"),
    ],
)
async def test_a_malformed_request_is_answered_with_a_problem_and_a_request_id_too(
    echoing: Gateway, request_head: str, expected: int, title: str
) -> None:
    status, headers, body = await raw(echoing.port, f"{request_head}\r\n\r\n")
    assert status == expected
    assert headers["content-type"] == "application/problem+json"
    assert headers["vary"] == "origin"
    content = json.loads(body)
    assert (content["status"], content["title"]) == (expected, title)
    assert content["request_id"] == headers["x-request-id"]
    assert isinstance(content["instance"], str)


async def test_a_body_of_a_mebibyte_passes_and_one_byte_more_does_not(client: httpx.AsyncClient) -> None:
    assert (await client.post("/orders", content=b"x" * 1_048_576)).json()["length"] == 1_048_576
    problem(await client.post("/orders", content=b"x" * 1_048_577), 413, "payload_too_large")


@pytest.mark.parametrize("path", ["/health", "/docs"])
async def test_the_gateways_own_pages_are_read_only(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.head(path)).status_code == 200
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        answer = await client.request(method, path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD"


async def test_an_unknown_method_is_not_allowed(client: httpx.AsyncClient) -> None:
    answer = await client.request("BREW", "/orders")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"  # RFC 9110 §15.5.6


async def test_two_authorization_headers_are_refused(client: httpx.AsyncClient) -> None:
    twice = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
    problem(await client.get("/orders", headers=twice), 400, "bad_request")
    assert sent(await client.get("/orders", headers=twice[:1]))["authorization"] == "Bearer a"


async def test_without_a_healthy_process_the_answer_is_503_at_once(
    echoing: Gateway, echo_port: int, client: httpx.AsyncClient
) -> None:
    echoing.publish({"notifier": ()})

    async def refused() -> bool:
        return (await client.get("/notifications")).status_code == 503

    await eventually(refused)
    answer = await client.get("/notifications")
    problem(answer, 503, "service_unavailable")
    assert answer.headers["Retry-After"] == "2"
    echoing.publish({"notifier": [Endpoint(echo_port, echo_port)]})

    async def accepted() -> bool:
        return (await client.get("/notifications")).status_code == 200

    await eventually(accepted)


async def test_only_allowed_origins_can_read_the_gateways_own_answers(client: httpx.AsyncClient) -> None:
    allowed = await client.get("/nothing", headers={"Origin": ORIGIN})
    assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert allowed.headers["Vary"] == "Origin"
    refused = await client.get("/nothing", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in refused.headers
    assert refused.headers["Vary"] == "Origin"


async def test_calls_between_services_use_listeners_of_their_own(echoing: Gateway) -> None:
    for listener in ("auth-internal", "users-internal"):
        async with httpx.AsyncClient(base_url=echoing.url(listener)) as inside:
            assert (await inside.get("/internal/anything")).json()["target"] == "/internal/anything"
