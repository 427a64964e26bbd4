"""Every process works behind a PgBouncer in transaction mode, with the protection of a direct connection."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from common.db.database import Database
from common.db.driver_pool import DriverPool
from common.db.migrations import upgrade
from common.testing.plugin import MakeDatabase, eventually
from orders.settings import Settings
from waybill_dev.base.state import State, find_state, write_json
from waybill_dev.chaos.count import count
from waybill_dev.chaos.run import until_settled
from waybill_dev.chaos.shoppers import SKU, buy, open_shop
from waybill_dev.chaos.subscriber import Subscriber
from waybill_dev.services.programs import ROLES, database_password
from waybill_dev.testing import StackUnderTest

from .conftest import Report
from .pooler import POOL, Pooler, running_pooler

MIGRATIONS = find_state().checkout / "services" / "orders" / "migrations"
SHOPPERS = 8
ENOUGH = 60
NOTE = "leave it at the door"


@pytest.fixture
async def settings(
    make_database: MakeDatabase, postgres_server: str, tmp_path: Path, unused_tcp_port: int
) -> AsyncIterator[Settings]:
    """Settings of a service whose role may do as little as in production, behind a pooler."""
    url, role, password = urlsplit(await make_database(MIGRATIONS)), f"r{secrets.token_hex(6)}", secrets.token_hex(8)
    admin = await asyncpg.connect(url.geturl())
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    await admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    await admin.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
    port = urlsplit(postgres_server).port or 5432
    async with running_pooler(tmp_path / "pooler", unused_tcp_port, port, {role: password}) as pooler:
        yield Settings(
            database_url=SecretStr(f"postgresql://{role}:{password}@127.0.0.1:{port}{url.path}"),
            database_pooler=pooler.address,
            amqp_url=SecretStr("amqp://nowhere.invalid/"),
            public_url="http://gateway.invalid",
            auth_url="http://auth.invalid",
            client_secret=SecretStr("unused"),
        )
    await admin.execute(f"DROP OWNED BY {role}")
    await admin.execute(f"DROP ROLE {role}")
    await admin.close()


async def test_readiness_refuses_a_pooler_whose_sessions_lack_their_timeout_until_migrate_has_set_it(
    settings: Settings,
) -> None:
    url = settings.database_url.get_secret_value()
    direct = await asyncpg.connect(url)
    name = urlsplit(url).path.removeprefix("/")
    await direct.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {name} SET idle_in_transaction_session_timeout = 0")
    async with Database(settings) as database:
        with pytest.raises(ConnectionError, match="run migrate"):
            await database.ping()
    await asyncio.to_thread(upgrade, MIGRATIONS, url)
    shown = await asyncpg.connect(url)
    assert await shown.fetchval("SHOW idle_in_transaction_session_timeout") == "1min"
    assert await shown.fetchval("SHOW jit") == "off"
    for connection in (direct, shown):
        await connection.close()


async def test_statements_of_many_connections_share_a_few_sessions(settings: Settings) -> None:
    """A named statement would exist on one of the sessions only, or twice on another."""
    pools = [DriverPool(database.endpoint, size=3, timeout=10, name="t") for database in [Database(settings)] * 4]
    databases = [Database(settings, role=f"t{number}") for number in range(4)]

    async def orm(database: Database, number: int) -> int:
        async with database.transaction() as session:
            found: int = (await session.execute(text("SELECT CAST(:n AS integer)"), {"n": number})).scalar_one()
            document = await session.scalar(text("SELECT CAST('{\"a\": 1}' AS jsonb)"))
            assert document == {"a": 1}
            return found

    async def plain(pool: DriverPool, number: int) -> int:
        found: int = (await pool.fetch("SELECT $1::integer AS n", number))[0]["n"]
        return found

    answers = await asyncio.gather(
        *(orm(databases[number % 4], number) for number in range(100)),
        *(plain(pools[number % 4], number) for number in range(100)),
    )
    assert answers == [*range(100), *range(100)]
    observer = await asyncpg.connect(settings.database_url.get_secret_value())
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()"
    assert await observer.fetchval(sessions) <= POOL
    await observer.close()
    for pool in pools:
        await pool.close()
    for database in databases:
        await database.close()


@pytest.mark.slow
async def test_orders_flow_behind_a_pooler_that_is_killed_in_between(
    stack: StackUnderTest,
    tmp_path: Path,
    unused_tcp_port_factory: Callable[[], int],
    report: Report,
) -> None:
    """`stack` only waits for this test's turn: the system under test has servers of its own."""
    state = State(find_state().checkout, tmp_path / "state")
    state.make()
    passwords = {service: database_password(state, service) for service in ROLES}
    postgres_port, port = unused_tcp_port_factory(), unused_tcp_port_factory()
    write_json(state.folder / "ports.json", {"postgres": postgres_port})  # `./dev up` takes the remembered one
    async with running_pooler(tmp_path / "pooler", port, postgres_port, passwords) as pooler:
        system = StackUnderTest(state.folder, {"WAYBILL_DATABASE_POOLER": pooler.address})
        await asyncio.to_thread(system.dev, "up", "--detach", "--owner", str(os.getpid()))
        try:
            await _shop(system, pooler, report)
        finally:
            await asyncio.to_thread(system.dev, "down")


async def _shop(system: StackUnderTest, pooler: Pooler, report: Report) -> None:
    status, since = system.status, datetime.now(UTC)
    purchases, shoppers, staff = await open_shop(status)
    subscriber = Subscriber(status["broker"]["amqp_url"])
    await subscriber.bind()
    listening = asyncio.create_task(subscriber.listen())
    ended = asyncio.Event()

    async def shop(number: int) -> None:
        while not ended.is_set():
            await buy(shoppers[number], purchases.customers[number], staff, purchases, len(purchases.changes))

    async def ordered(since: int) -> bool:
        return len(purchases.changes) >= since + ENOUGH

    leaving, leaver = shoppers.pop(), purchases.customers.pop()
    note = {"lines": [{"sku": SKU, "quantity": 1}], "note": NOTE}
    await leaving.request("POST", "/orders", json=note)
    async with asyncio.TaskGroup() as group:
        for number in range(SHOPPERS):
            group.create_task(shop(number))
        await eventually(lambda: ordered(0), within=60)
        direct = await _direct_connections(status["postgres"]["url"])
        await pooler.kill()
        await pooler.start()
        await leaving.request("DELETE", "/me", known=frozenset({401, 404, 409}))
        before = len(purchases.changes)
        await eventually(lambda: ordered(before), within=60)
        ended.set()
    mails = system.folder / "logs" / "mail.log"
    lines = await until_settled(lambda: count(status, purchases, subscriber.received, since, mails))
    assert await _notes(status["services"]["orders"]["database_url"], leaver) == [None]
    await subscriber.unbind()
    listening.cancel()
    for shopper in [*shoppers, leaving, staff]:
        await shopper.close()
    restarts = [process for service in system.status["services"].values() for process in service["processes"]]
    report(f"{len(purchases.changes)} orders; connections past the pooler: {sorted(direct)}")
    assert [line for line in lines if not line.is_correct] == []
    assert {process["name"]: process["restarts"] for process in restarts if process["restarts"]} == {}
    assert all(name.endswith("-listen") for name in direct)


async def _notes(url: str, customer_id: str) -> list[str | None]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT note FROM orders WHERE customer_id = $1::text::uuid", customer_id)
    finally:
        await connection.close()
    return [row["note"] for row in rows]


async def _direct_connections(url: str) -> set[str]:
    """Names of the connections that did not come through the pooler: it gives each session several names in turn."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT application_name FROM pg_stat_activity WHERE usename = ANY($1) AND query ~* '^LISTEN'",
            [*ROLES],
        )
    finally:
        await connection.close()
    return {row["application_name"] for row in rows}
