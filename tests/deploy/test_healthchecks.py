"""The servers' health checks, run against a server that answers, one that does not, and none."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from common.testing.plugin import management

from .compose_file import DEPLOY

GATEWAY = DEPLOY / "gateway" / "healthcheck.sh"
RABBITMQ = DEPLOY / "compose" / "rabbitmq_healthcheck.sh"
PATIENCE = "0.2"  # seconds
HEALTHY = b"cluster.auth.membership_healthy: 1\ncluster.users.membership_healthy: 2\n"


async def code(*words: str | Path) -> int:
    process = await asyncio.create_subprocess_exec("bash", *map(str, words), stderr=subprocess.DEVNULL)
    try:
        return await asyncio.wait_for(process.wait(), 20)
    finally:
        if process.returncode is None:
            process.kill()


@asynccontextmanager
async def answering(body: bytes) -> AsyncIterator[str]:
    """The port of a server that answers each request with `body`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield str(server.sockets[0].getsockname()[1])


@pytest.fixture
def hanging() -> Iterator[str]:
    """The port of a server that only accepts connections, like one whose process is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield str(server.getsockname()[1])


@pytest.fixture
def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


async def test_a_gateway_is_healthy_once_each_cluster_has_a_healthy_endpoint() -> None:
    async with answering(HEALTHY) as port:
        assert await code(GATEWAY, port) == 0
    async with answering(HEALTHY + b"cluster.orders.membership_healthy: 0\n") as port:
        assert await code(GATEWAY, port) != 0


async def test_a_gateway_that_hangs_or_is_down_is_unhealthy(hanging: str, closed: str) -> None:
    assert await code(GATEWAY, hanging, PATIENCE) != 0
    assert await code(GATEWAY, closed, PATIENCE) != 0


async def test_a_broker_is_healthy_when_it_accepts_clients_and_its_management_answers(
    amqp_url: str, closed: str
) -> None:
    port = str(urlsplit(amqp_url).port)
    async with management() as api:
        answers = str(api.base_url.port)
    assert await code(RABBITMQ, port, answers) == 0
    assert await code(RABBITMQ, closed, answers) != 0


async def test_a_broker_that_hangs_is_unhealthy(amqp_url: str, hanging: str) -> None:
    assert await code(RABBITMQ, str(urlsplit(amqp_url).port), hanging, PATIENCE) != 0


@pytest.mark.parametrize("check", [GATEWAY, RABBITMQ], ids=["gateway", "broker"])
async def test_a_check_that_is_killed_while_it_waits_leaves_no_process(check: Path, hanging: str) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        assert await reader.read() == b""  # no process has the connection open any more
        closed.set()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        port = str(server.sockets[0].getsockname()[1])
        process = await asyncio.create_subprocess_exec("bash", check, *([hanging] if check == RABBITMQ else []), port)
        await asyncio.wait_for(asked.wait(), 20)
        process.kill()
        await asyncio.wait_for(closed.wait(), 20)
        await process.wait()
