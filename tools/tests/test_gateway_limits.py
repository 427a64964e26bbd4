"""Limits of one client at the gateway: memory, connections, requests. With the real Envoy and its configuration."""

import asyncio
import contextlib
import resource

import httpx
import pytest

from waybill_dev.base.state import LOOPBACK
from waybill_dev.servers.gateway import Gateway

from .http2 import http2_connection

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEMORY = 256 * 2**20
"""Half of the container's memory (deploy/compose.yml); the other half is for connections."""
NEARLY_A_MEBIBYTE = 950_000


async def memory(gateway: Gateway) -> int:
    """Bytes of Envoy's heap."""
    async with httpx.AsyncClient() as admin:
        return int((await admin.get(f"http://{LOOPBACK}:{gateway.admin_port}/memory")).json()["total_physical_bytes"])


async def answered(gateway: Gateway, count: int) -> int:
    """How many requests of another client succeed, each on a connection of its own."""
    succeeded = 0
    for _ in range(count):
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(base_url=gateway.url(), timeout=3) as other:
                succeeded += (await other.post("/orders", content=b"x" * 1000)).status_code == 200
    return succeeded


@pytest.mark.parametrize("streams", [100, 400])
async def test_open_bodies_of_one_connection_are_bounded(echoing: Gateway, streams: int) -> None:
    before = await memory(echoing)
    async with http2_connection(LOOPBACK, echoing.port) as connection:
        assert connection.settings[3] == 100
        await connection.open_bodies(streams, "/orders", NEARLY_A_MEBIBYTE)
        assert streams == 100 or connection.ended or connection.refused >= 300
        held = await memory(echoing)
        assert await answered(echoing, 20) == 20
    assert held - before < 130 * 2**20


async def test_open_bodies_of_many_connections_stay_within_the_memory_and_others_are_answered(
    echoing: Gateway,
) -> None:
    most = 0
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            connection = await stack.enter_async_context(http2_connection(LOOPBACK, echoing.port))
            with contextlib.suppress(TimeoutError):
                await connection.open_bodies(100, "/orders", NEARLY_A_MEBIBYTE)
            most = max(most, await memory(echoing))
            assert await answered(echoing, 5) >= 4
    assert most < MEMORY


async def test_a_connection_without_a_whole_request_is_closed_within_seconds(echoing: Gateway) -> None:
    """Half-sent requests, of which one client can open thousands, then block others for seconds at most."""

    async def closed(sent: bytes) -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, echoing.port)
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with asyncio.timeout(15):
        await asyncio.gather(*map(closed, (b"", b"G", b"GET /orders HTTP/1.1\r\nHost: x\r\n")))


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 12_000, reason="too few open files are allowed")
async def test_ten_thousand_half_sent_requests_block_no_other_client(echoing: Gateway) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def begin() -> None:
        _, writer = await asyncio.open_connection(LOOPBACK, echoing.port)
        writer.write(b"GET /orders HTTP/1.1\r\nHost: x\r\n")
        writers.append(writer)

    try:
        for _ in range(101):
            await asyncio.gather(*(begin() for _ in range(100)))
        assert await answered(echoing, 10) == 10
    finally:
        for writer in writers:
            writer.transport.abort()


@pytest.mark.parametrize(("path", "address"), [("/token", "127.0.0.2"), ("/sign-in", "127.0.0.3")])
async def test_one_network_is_limited_and_others_are_not(echoing: Gateway, path: str, address: str) -> None:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    async with (
        httpx.AsyncClient(base_url=echoing.url(), transport=transport) as flood,
        httpx.AsyncClient(base_url=echoing.url()) as other,
    ):
        answers = [await flood.post(f"{path}?a=b") for _ in range(200)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert refused[0].headers["Content-Type"] == "application/problem+json"
        assert (await flood.get("/orders")).status_code == 200
        assert {(await other.post(path)).status_code for _ in range(60)} == {200}
