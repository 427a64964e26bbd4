"""The events of orders over HTTP, through the gateway: other teams' programs, and processes that end meanwhile."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.testing.plugin import eventually
from common.testing.served import event_source

from .test_subscribers import EXAMPLES, NPM


@pytest.fixture
async def reader(admin: Any) -> AsyncIterator[dict[str, str]]:
    """A managed client that may read events, as the examples take it from the environment."""
    body = {"name": "Reader of events", "grant_types": ["client_credentials"], "scopes": ["events:read"]}
    answer = await admin.client.post("/clients", json=body, headers=admin.bearer)
    assert answer.status_code == 201, answer.text
    created = answer.json()
    yield {"CLIENT_ID": created["client_id"], "CLIENT_SECRET": created["client_secret"]}
    await admin.client.delete(f"/clients/{created['client_id']}", headers=admin.bearer)


@contextlib.asynccontextmanager
async def following(command: list[str], environment: dict[str, str], log: Path) -> AsyncIterator[None]:
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **environment}, stdout=out, stderr=out
        )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("program", ["python", "node"])
async def test_the_examples_follow_all_events_and_resume_where_they_were(
    stack: Any, customer: Any, reader: dict[str, str], tmp_path: Path, program: str
) -> None:
    if program == "node" and NPM is None:
        pytest.skip("node is not installed")
    command = {
        "python": [sys.executable, str(EXAMPLES / "python" / "feed.py")],
        "node": ["node", str(EXAMPLES / "node" / "feed.js")],
    }[program]
    resume, log = tmp_path / "feed.resume", tmp_path / "log"
    environment = {"GATEWAY": stack.status["gateway"], "RESUME": str(resume), **reader}
    begun = (await customer.order()).json()["id"]

    async def published() -> str:
        answer = await customer.get("/events")
        ids = [event["id"] for event in answer.json() if event["subject"] == begun]
        return ids[0] if ids else ""

    resume.write_text(await eventually(published))
    orders = []
    for _ in range(2):  # the second time after a kill
        async with following(command, environment, log):
            orders.append((await customer.order()).json()["id"])

            async def received(order: str = orders[-1]) -> bool:
                return f"orders.order.placed.v1 {order} 1" in log.read_text()

            await eventually(received, within=20)
        orders.append((await customer.order()).json()["id"])  # nobody listens
    async with following(command, environment, log):
        await eventually(lambda: received(orders[-1]), within=20)
    lines = log.read_text().splitlines()
    placed = [line.split()[1] for line in lines if line.split()[1:2] and line.split()[1] in orders]
    assert list(dict.fromkeys(placed)) == orders


async def test_streams_end_when_access_ends_and_hold_up_no_stop(stack: Any, customer: Any) -> None:
    order = (await customer.order()).json()["id"]
    async with (
        event_source(customer.client, "/events/stream", customer.bearer) as own,
        event_source(customer.client, f"/orders/{order}/stream", customer.bearer) as of_order,
    ):
        for events in (own, of_order):
            assert await asyncio.wait_for(anext(events), 5) == {"comment": ""}
        cancelled = await customer.client.post(f"/orders/{order}/cancel", headers=customer.bearer)
        assert cancelled.status_code == 200
        for events in (own, of_order):
            async with asyncio.timeout(5):
                while (event := await anext(events)).get("event") != "orders.order.cancelled.v1":
                    assert "end" not in event.values()
        await customer.client.delete("/sessions", headers=customer.bearer)
        for events in (own, of_order):
            ended = await asyncio.wait_for(anext(events), 3)
            assert ended == {"event": "end", "data": json.dumps({"reason": "revoked"})}


@pytest.mark.slow
async def test_a_stopping_process_ends_its_streams(stack: Any, customer: Any) -> None:
    async with event_source(customer.client, "/events/stream", customer.bearer) as events:
        assert await asyncio.wait_for(anext(events), 5) == {"comment": ""}
        restarting = asyncio.ensure_future(asyncio.to_thread(stack.dev, "restart", "orders:api"))
        ended = await asyncio.wait_for(anext(events), 10)
        assert ended == {"event": "end", "data": json.dumps({"reason": "shutdown"})}
        await asyncio.wait_for(restarting, 40)

    async def again() -> bool:
        async with event_source(customer.client, "/events/stream", customer.bearer) as events:
            return await asyncio.wait_for(anext(events), 5) == {"comment": ""}

    await eventually(again, within=30)
