"""Calls an API in tests as a server does: runs its lifespan and gives each request a copy of its state."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BASE_URL = "http://service.invalid"


@asynccontextmanager
async def api_client(
    app: ASGIApp, *, base_url: str = BASE_URL, headers: Mapping[str, str] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app. For the app, requests arrive at the port of `base_url` (see `by_port`)."""
    async with running(app) as state:

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(with_state, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers) as client:
            yield client


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """Runs the app's lifespan (ASGI, Lifespan Protocol) for the length of the block and yields its state."""
    state: dict[str, Any] = {}
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.4"}, "state": state}
    lifespan = asyncio.ensure_future(app(scope, to_app.get, from_app.put))
    try:
        await _exchange("startup", lifespan, to_app, from_app)
        yield state
        await _exchange("shutdown", lifespan, to_app, from_app)
    finally:
        lifespan.cancel()
        await asyncio.gather(lifespan, return_exceptions=True)


async def _exchange(
    phase: str, lifespan: asyncio.Future[Any], to_app: asyncio.Queue[Message], from_app: asyncio.Queue[Message]
) -> None:
    await to_app.put({"type": f"lifespan.{phase}"})
    answer = asyncio.ensure_future(from_app.get())
    await asyncio.wait({answer, lifespan}, return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        answer.cancel()
        lifespan.result()  # raises what the app raised
    if answer.result()["type"] != f"lifespan.{phase}.complete":
        raise RuntimeError(answer.result().get("message", f"the app's {phase} failed"))
