"""Serves an API on a port in the test's own event loop, for what a test must see arrive piece by piece."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import httpx
import uvicorn
from starlette.types import ASGIApp

from common.runtime.http_protocol import UpgradeIgnoringProtocol
from common.runtime.server import listen


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the test's signal handlers alone."""
        yield


@contextlib.asynccontextmanager
async def served(app: ASGIApp, *, stops_within: int = 5) -> AsyncIterator[str]:
    """The URL of the app. At the end it stops as a process does, and raises `TimeoutError` if that takes longer."""
    config = uvicorn.Config(
        app,
        http=UpgradeIgnoringProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=stops_within,
    )
    socket, server = listen("127.0.0.1", 0), _Server(config)
    serving = asyncio.ensure_future(server.serve([socket]))
    try:
        while not server.started:
            if serving.done():
                serving.result()
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, stops_within + 5)


@contextlib.asynccontextmanager
async def event_source(
    client: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    """The server-sent events of a stream (WHATWG HTML §9.2.6); a comment is `{"comment": …}`."""
    async with client.stream("GET", path, headers=headers, timeout=60) as answer:
        if answer.status_code != 200:
            await answer.aread()
            raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    event: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(":")
        if line:
            event[name or "comment"] = value.removeprefix(" ")
        elif event:
            yield event
            event = {}
