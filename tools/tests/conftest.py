import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from common.testing.plugin import eventually
from waybill_dev.base.state import LOOPBACK, State, find_state
from waybill_dev.servers.gateway import CLUSTERS, Endpoint, Gateway
from waybill_dev.supervision.process import Process

ORIGIN = "https://shop.example"
"""The one that the gateway's CORS settings allow."""


@pytest.fixture
def state(tmp_path: Path) -> State:
    """An empty state folder of this checkout."""
    empty = State(find_state().checkout, tmp_path / "state")
    empty.make()
    return empty


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
