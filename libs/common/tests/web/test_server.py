"""Requests over a real socket, where a client can misbehave in ways that an in-process client cannot."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from common.runtime.health import Health
from common.runtime.server import Server
from common.testing.plugin import eventually
from common.web import ApiRouter, StrictModel, create_api

T = TypeVar("T")
LogLines = Callable[[], list[dict[str, Any]]]

router = ApiRouter()


class Note(StrictModel):
    text: str


@router.post("/notes")
async def write_note(body: Note) -> Note:
    return body


@router.post("/form")
async def read_form(request: Request) -> int:
    return len(await request.body())


@router.get("/length")
async def length() -> int:
    return 12345


@router.get("/half")
async def half() -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    return StreamingResponse(parts())


@pytest.fixture
async def port(settings: Any, health: Health) -> AsyncIterator[int]:
    """The port of a server of the sample API."""
    app = create_api(settings, title="Shop", routers=[router], health=health)
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(app, health, lambda _: None)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        await eventually(lambda: _is(server.started))
        yield listener.getsockname()[1]
    finally:
        server.close()
        await serving


async def _is(value: T) -> T:
    return value


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def send_chunks(writer: asyncio.StreamWriter, path: str, count: int) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    chunk = b"x" * 65536
    for _ in range(count):
        writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        await writer.drain()


async def read_head(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(5):
        return (await reader.readuntil(b"\r\n\r\n")).decode().lower()


@pytest.mark.parametrize("path", ["/notes", "/form"])
async def test_a_chunked_body_is_refused_as_soon_as_it_passes_the_limit(port: int, path: str) -> None:
    async with connection(port) as (reader, writer):
        await send_chunks(writer, path, 17)
        head = await read_head(reader)
    assert head.startswith("http/1.1 413 ")
    assert "content-type: application/problem+json" in head


async def test_a_declared_length_over_the_limit_is_refused_before_the_body_is_sent(port: int) -> None:
    async with connection(port) as (reader, writer):
        writer.write(b"POST /notes HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n")
        assert (await read_head(reader)).startswith("http/1.1 413 ")


async def test_no_header_names_the_server(port: int) -> None:
    async with connection(port) as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert "\r\nserver:" not in await read_head(reader)


async def test_an_answer_to_head_has_the_length_of_the_body_and_not_the_body(port: int) -> None:
    async with connection(port) as (reader, writer):
        writer.write(b"HEAD /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head = await read_head(reader)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
    assert head.startswith("http/1.1 200 ")
    assert "content-length: 5" in head


async def test_a_client_that_leaves_while_sending_is_no_error(port: int, log_lines: LogLines) -> None:
    async with connection(port) as (_, writer):
        await send_chunks(writer, "/notes", 1)
    line = await eventually(lambda: _is(log_lines()))
    assert [(entry["level"], entry["status"]) for entry in line] == [("info", 499)]


async def test_while_draining_the_server_closes_kept_alive_connections(port: int, health: Health) -> None:
    async with connection(port) as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert "connection:" not in await read_head(reader)
        await reader.readexactly(len('{"status":"ok"}'))
        health.draining = True
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert "connection: close" in await read_head(reader)
        async with asyncio.timeout(5):
            assert await reader.read() == b'{"status":"ok"}'


async def test_an_error_after_the_start_of_an_answer_is_logged_and_ends_the_connection(
    port: int, log_lines: LogLines
) -> None:
    async with connection(port) as (reader, writer):
        writer.write(b"GET /half HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(5):
            answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not answer.endswith(b"0\r\n\r\n")
    assert any("ZeroDivisionError" in line.get("exception", "") for line in log_lines())


BODY = b'{"text": "ten lines"}'


@pytest.mark.parametrize("offer", [b"TLS/1.2", b"h2c", b"websocket", b"x/1, y/2"])
@pytest.mark.parametrize("step", [1000, 1])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_offer_to_upgrade_is_ignored_and_the_body_read(
    port: int, log_lines: LogLines, offer: bytes, step: int, chunked: bool
) -> None:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(BODY)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if chunked else BODY
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + offer + b"\r\nContent-Type: application/json\r\n"
    post = b"POST /notes HTTP/1.1\r\nHost: x\r\n" + upgrade + framing + b"\r\n\r\n" + body
    get = b"GET /length HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n"
    requests = post + get + post
    async with connection(port) as (reader, writer):
        for start in range(0, len(requests), step):
            writer.write(requests[start : start + step])
            await writer.drain()
        for expected in (BODY.replace(b" ", b"", 1), b"12345", BODY.replace(b" ", b"", 1)):
            assert (await read_head(reader)).startswith("http/1.1 200 ")
            assert await reader.readexactly(len(expected)) == expected
    assert [line for line in log_lines() if line["event"] != "request"] == []
