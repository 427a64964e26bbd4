"""Pytest plugin: a database in a real PostgreSQL and a virtual host in a real RabbitMQ for each test.

`./dev test` sets `WAYBILL_TEST_POSTGRES_URL` (a superuser's), `WAYBILL_TEST_AMQP_URL` and `WAYBILL_TEST_MANAGEMENT_URL`
(an administrator's).
"""

import asyncio
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import httpx
import pytest

from common.db import inbox_by_day, shared_tables
from common.db.driver import driver_dsn
from common.db.migrations import upgrade
from common.observability.logs import configure_logging

T = TypeVar("T")

MakeDatabase = Callable[[Path], Awaitable[str]]


async def eventually(check: Callable[[], Awaitable[T]], *, within: float = 10.0) -> T:
    """The first true result of `check`. Raises `TimeoutError` with the last result after `within` seconds."""
    deadline = time.monotonic() + within
    last: object = None
    while time.monotonic() < deadline:
        try:
            result = await check()
        except (AssertionError, LookupError, httpx.TransportError) as error:
            last = error
        else:
            if result:
                return result
            last = result
        await asyncio.sleep(0.02)
    raise TimeoutError(f"not within {within} s; last result: {last!r}")


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise pytest.UsageError(f"{name} is not set; run the tests with ./dev test")
    return value


def _on(server: str, database: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{database}"))


@pytest.fixture(autouse=True)
def _logs() -> None:
    """Configures logging before each test, because a test of logging changes the configuration."""
    configure_logging("test", "pytest", "warning")


@pytest.fixture
async def loop() -> asyncio.AbstractEventLoop:
    """The event loop of the test's fixtures, for a test that is a plain function and runs coroutines in it."""
    return asyncio.get_running_loop()


@pytest.fixture(scope="session")
def postgres_server() -> str:
    return driver_dsn(_required("WAYBILL_TEST_POSTGRES_URL"))


@pytest.fixture
async def make_database() -> AsyncIterator[MakeDatabase]:
    """Creates a database from a migrations folder and returns its URL. A template is migrated once and copied."""
    async with AsyncExitStack() as stack:

        async def make(migrations: Path) -> str:
            return await stack.enter_async_context(private_database(migrations))

        yield make


@asynccontextmanager
async def private_database(migrations: Path) -> AsyncIterator[str]:
    """The URL of a migrated database, which is dropped after the block."""
    server = driver_dsn(_required("WAYBILL_TEST_POSTGRES_URL"))
    admin = await asyncpg.connect(server)
    name = f"t_{uuid.uuid4().hex}"
    try:
        template = await _template(admin, server, migrations)
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
        try:
            yield _on(server, name)
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


async def _template(admin: asyncpg.Connection, server: str, migrations: Path) -> str:
    """The template's name. Parallel test processes wait while the first one creates it."""
    name = _template_name(migrations)
    await admin.execute("SELECT pg_advisory_lock(hashtext($1))", name)
    try:
        if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await admin.execute(f"CREATE DATABASE {name}_new")
            await asyncio.to_thread(upgrade, migrations, _on(server, f"{name}_new"))
            await admin.execute(f"ALTER DATABASE {name}_new RENAME TO {name}")
    finally:
        await admin.execute("SELECT pg_advisory_unlock(hashtext($1))", name)
    return name


def _template_name(migrations: Path) -> str:
    digest = hashlib.sha256(str(migrations).encode())
    shared = [Path(shared_tables.__file__), Path(inbox_by_day.__file__)]
    for path in [*sorted(migrations.rglob("*.py")), *shared]:
        digest.update(path.read_bytes())
    return f"template_{digest.hexdigest()[:24]}"


@pytest.fixture
async def amqp_url() -> AsyncIterator[str]:
    """An administrator's URL of this test's own virtual host."""
    async with private_vhost() as url:
        yield url


@asynccontextmanager
async def private_vhost() -> AsyncIterator[str]:
    """An administrator's URL of a virtual host, which is deleted after the block."""
    broker = urlsplit(_required("WAYBILL_TEST_AMQP_URL"))
    name = f"t-{uuid.uuid4().hex}"
    user = broker.username or "guest"
    async with management() as api:
        (await api.put(f"/api/vhosts/{name}")).raise_for_status()
        try:
            grant = {"configure": ".*", "write": ".*", "read": ".*"}
            (await api.put(f"/api/permissions/{name}/{quote(user)}", json=grant)).raise_for_status()
            yield urlunsplit(broker._replace(path=f"/{name}"))
        finally:
            await api.delete(f"/api/vhosts/{name}")


def management() -> httpx.AsyncClient:
    """A client of RabbitMQ's management API, signed in as an administrator."""
    address = urlsplit(_required("WAYBILL_TEST_MANAGEMENT_URL"))
    base = f"{address.scheme}://{address.hostname}:{address.port}"
    return httpx.AsyncClient(base_url=base, auth=(address.username or "", address.password or ""), timeout=20)
