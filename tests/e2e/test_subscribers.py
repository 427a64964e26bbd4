"""Subscribers of another team: the programs of `examples/`, with credentials that may only read orders' events."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import asyncpg
import pytest

from common.testing.plugin import eventually
from waybill_dev.testing import StackUnderTest

from .conftest import Team

EXAMPLES = Path(__file__).parents[2] / "examples"
NPM = shutil.which("npm") if shutil.which("node") else None
Rows = Callable[[str], Awaitable[list[Any]]]


@dataclass
class Example:
    """How to run an example, and how to query its database."""

    command: list[str | Path]
    environment: dict[str, str]
    rows: Rows

    @contextlib.asynccontextmanager
    async def running(self, log: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Runs the example: it listens at the start of the block and is killed at the end."""
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *self.command, *words, env={**os.environ, **self.environment}, stdout=out, stderr=out
            )
        try:

            async def listening() -> bool:
                output = await asyncio.to_thread(log.read_text)
                assert process.returncode is None, output
                return "listening" in output

            await eventually(listening, within=180)  # the stream has the events of all tests before
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def states(self) -> dict[str, str]:
        return {str(order): state for order, state in await self.rows("SELECT id, state FROM orders")}

    async def totals(self) -> tuple[Any, ...]:
        return (*(await self.rows("SELECT count(*) FROM inbox")), *(await self.rows("SELECT * FROM ordered")))


@pytest.fixture(params=["python", "node"])
async def example(
    request: pytest.FixtureRequest, stack: StackUnderTest, team: Team, tmp_path: Path
) -> AsyncIterator[Example]:
    if request.param == "python":
        file = tmp_path / "orders.db"

        async def rows(statement: str) -> list[Any]:
            with contextlib.closing(sqlite3.connect(file)) as database:
                return [tuple(row) for row in database.execute(statement)]

        environment = {"AMQP_URL": team.amqp_url, "DATABASE": str(file)}
        yield Example([sys.executable, EXAMPLES / "python" / "subscriber.py"], environment, rows)
        return
    if NPM is None:
        pytest.skip("node and npm are not installed")
    folder = await asyncio.to_thread(installed, stack.folder, NPM)
    async with private_database(stack.status["postgres"]["url"], team.name) as (url, query):
        yield Example(["node", folder / "subscriber.js"], {"AMQP_URL": team.amqp_url, "DATABASE_URL": url}, query)


def installed(state: Path, npm: str) -> Path:
    """The folder of the Node example with its packages installed."""
    folder = state / "example-node"
    lock = (EXAMPLES / "node" / "package-lock.json").read_bytes()
    done = folder / "node_modules" / "waybill-lock.json"
    shutil.copytree(EXAMPLES / "node", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    if not done.exists() or done.read_bytes() != lock:
        subprocess.run(  # noqa: S603 - the packages of our lock file
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        done.write_bytes(lock)
    return folder


@contextlib.asynccontextmanager
async def private_database(server: str, name: str) -> AsyncIterator[tuple[str, Rows]]:
    admin = await asyncpg.connect(server)
    await admin.execute(f'CREATE DATABASE "{name}"')
    url = urlsplit(server)._replace(path=f"/{name}").geturl()
    connection = await asyncpg.connect(url)

    async def query(statement: str) -> list[Any]:
        return [tuple(row) for row in await connection.fetch(statement)]

    try:
        yield url, query
    finally:
        await connection.close()
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await admin.close()


@pytest.mark.slow
async def test_a_team_processes_history_and_new_events_once_despite_repetitions(
    example: Example, team: Team, customer: Any, admin: Any, tmp_path: Path
) -> None:
    before = (await customer.order(3)).json()["id"]
    await admin.client.post(f"/orders/{before}/confirm", headers=admin.bearer)
    log = tmp_path / "log"
    async with example.running(log, "--history"):
        assert (await example.states())[before] == "confirmed"
        after = (await customer.order()).json()["id"]

        async def arrived(state: str) -> bool:
            return (await example.states()).get(after) == state

        await eventually(lambda: arrived("placed"))
        await publish(team.administrator, f"{team.name}.inbound", b"no event")
        await admin.client.post(f"/orders/{after}/confirm", headers=admin.bearer)
        await eventually(lambda: arrived("confirmed"))
        await eventually(lambda: parked(team, b"no event"))
        totals = await example.totals()
    # It was killed. Reading everything again changes nothing.
    async with example.running(log, "--history"):
        assert await example.totals() == totals
        assert {before: "confirmed", after: "confirmed"}.items() <= (await example.states()).items()
        assert not await parked(team, b"no event")


async def publish(amqp_url: str, queue: str, body: bytes) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        await (await connection.channel()).default_exchange.publish(aio_pika.Message(body), queue)


async def parked(team: Team, body: bytes) -> bool:
    async with await aio_pika.connect(team.amqp_url) as connection:
        queue = await (await connection.channel()).get_queue(f"{team.name}.parked", ensure=False)
        message = await queue.get(fail=False, no_ack=True)
    return message is not None and message.body == body
