"""The real Envoy with the real configuration, in front of a service that answers with the request it received."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from common.testing.plugin import eventually
from waybill_dev.base.state import LOOPBACK, State, find_state
from waybill_dev.servers.gateway import CLUSTERS, Endpoint, Gateway
from waybill_dev.supervision.process import Process

ORIGIN = "https://shop.example"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def echo_port() -> AsyncIterator[int]:
    """The port of a service that answers every request with its target, headers and length, as JSON."""
    server = await asyncio.start_server(_echo, LOOPBACK, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip().split("\r\n")
    headers = [line.split(": ", 1) for line in lines]
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    await reader.readexactly(length)
    body = json.dumps({"target": first.split()[1], "headers": headers, "length": length}).encode()
    answer = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(answer.encode() + body)
    await writer.drain()
    writer.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    state = State(find_state().checkout, tmp_path_factory.mktemp("gateway"))
    state.make()
    envoy = Gateway(state)
    envoy.publish(dict.fromkeys(CLUSTERS, ()))
    process = Process(envoy.program(cors_origins=json.dumps([ORIGIN])), role="server")
    process.start()
    await process.until_running()
    yield envoy
    await process.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def echoing(gateway: Gateway, echo_port: int) -> Gateway:
    """The gateway, which routes everything to the echoing service."""
    gateway.publish({cluster: [Endpoint(echo_port, echo_port)] for cluster in CLUSTERS})

    async def all_routed() -> bool:
        return all([await gateway.sends_to(cluster, echo_port) for cluster in CLUSTERS])

    await eventually(all_routed, within=15)
    return gateway


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
        "/orders/%2e%2e/metrics",
        "/orders/..%2fmetrics",
        "/orders%2f..%2f/internal/revocations",
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
        ("HELLO", 400, "Bad Request"),
        ("POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4", 400, "Bad Request"),
        ("POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno size", 400, "Bad Request"),
        ("GET /orders HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket", 403, "Forbidden"),
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
