"""Code that starts before the migration of its release, and code that is rolled back across a later one."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import alembic.command
import asyncpg
import httpx
import pytest

from common.db.migrations import config, upgrade
from common.db.revisions import newest_revision
from common.testing.plugin import eventually
from waybill_dev.base.state import State
from waybill_dev.journeys.order_journey import travel
from waybill_dev.services.migrations import migrate
from waybill_dev.services.programs import ROLES, Addresses
from waybill_dev.testing import StackUnderTest

pytestmark = pytest.mark.slow

# As `expand` of docs/migrations.md allows, in every table, to find any statement that an added column disturbs.
TOMORROW = '''
from alembic import op

revision, down_revision = "{tomorrow}", "{today}"
EVERY_TABLE = """
    DO $$ DECLARE name regclass; BEGIN
    FOR name IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        AND NOT relispartition AND relname <> 'alembic_version'
    LOOP EXECUTE format('ALTER TABLE %s {{}}', name); END LOOP; END $$"""


def upgrade():
    op.execute(EVERY_TABLE.format("ADD COLUMN tomorrow integer NOT NULL DEFAULT 1"))


def downgrade():
    op.execute(EVERY_TABLE.format("DROP COLUMN tomorrow"))
'''


@dataclass
class Tomorrow:
    """A service's database, and the migrations of its next release."""

    url: str
    folder: Path
    today: str
    revision: str

    @contextlib.asynccontextmanager
    async def migrated(self) -> AsyncIterator[None]:
        assert await asyncio.to_thread(upgrade, self.folder, self.url)
        try:
            yield
        finally:
            await asyncio.to_thread(alembic.command.downgrade, config(self.folder, self.url), self.today)


def tomorrow_of(service: str, stack: StackUnderTest, scratch: Path) -> Tomorrow:
    folder, migrations = scratch / service, stack.checkout / "services" / service / "migrations"
    shutil.copytree(migrations, folder, ignore=shutil.ignore_patterns("__pycache__"))
    today = newest_revision(folder)
    tomorrow = f"{int(today) + 1:04}"
    (folder / "versions" / f"{tomorrow}_tomorrow.py").write_text(TOMORROW.format(today=today, tomorrow=tomorrow))
    return Tomorrow(stack.addresses["services"][service]["database_url"], folder, today, tomorrow)


async def test_all_roles_work_on_the_schema_of_a_later_release_which_their_migrate_leaves_alone(
    stack: StackUnderTest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = State(stack.checkout, stack.folder)
    addresses = Addresses("", "", "", stack.addresses["postgres"]["url"], "", own_broker=True, smtp_port=0)
    async with contextlib.AsyncExitStack() as later:
        for service in ROLES:
            tomorrow = tomorrow_of(service, stack, tmp_path)
            await later.enter_async_context(tomorrow.migrated())
            assert await asyncio.to_thread(stack.dev, "ops", service, "migrate") == "nothing to migrate\n"
            await migrate(state, addresses, service)  # as `./dev up` does
            warning = f"{service} is ahead, at revision {tomorrow.revision}; the code's is {tomorrow.today}"
            assert capsys.readouterr().err.count(warning) == 1
        await asyncio.gather(*(asyncio.to_thread(stack.dev, "restart", service) for service in ROLES))
        await travel(await asyncio.to_thread(lambda: stack.status))


async def test_no_role_is_ready_and_no_worker_begins_before_the_schema_is_there(
    stack: StackUnderTest, gateway: httpx.AsyncClient
) -> None:
    services = stack.addresses["services"]
    async with asyncio.TaskGroup() as starting, contextlib.AsyncExitStack() as earlier:
        for service in ROLES:
            await asyncio.to_thread(stack.dev, "stop", service)
            await earlier.enter_async_context(behind(services[service]["database_url"]))
        for service in ROLES:
            starting.create_task(asyncio.to_thread(stack.dev, "start", service))
        for process in (process for service in ROLES for process in services[service]["processes"]):
            is_api = process["role"] == "api"
            await eventually(partial(waits_for_schema, gateway, process["url"], is_api=is_api), within=60)


@contextlib.asynccontextmanager
async def behind(url: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(url)
    revision = await connection.fetchval("SELECT version_num FROM alembic_version")
    try:
        await connection.execute("UPDATE alembic_version SET version_num = '0000'")
        yield
    finally:
        await connection.execute("UPDATE alembic_version SET version_num = $1", revision)
        await connection.close()


async def waits_for_schema(client: httpx.AsyncClient, url: str, *, is_api: bool) -> bool:
    answer = await client.get(f"{url}/health/ready")
    checks = answer.json()["checks"]
    return answer.status_code == 503 and checks["schema"] == "SchemaBehind" and (is_api or len(checks) == 1)
