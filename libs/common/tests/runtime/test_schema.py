"""The schema is there once the database is at least at the code's revision."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from common.db.migrations import upgrade
from common.runtime.schema import Schema, SchemaBehind
from common.settings import ServiceSettings
from common.testing.plugin import MakeDatabase, eventually

FOLDER = Path(__file__).parents[1] / "migrations"


async def test_it_is_there_once_the_database_was_migrated_and_then_no_query_is_made(
    settings: ServiceSettings, make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = await make_database(tmp_path)
    schema = Schema(settings.model_copy(update={"database_url": SecretStr(url)}), FOLDER, role="api")
    with pytest.raises(SchemaBehind, match="revision none, the code needs 0002"):
        await schema.check()
    waiting = asyncio.create_task(schema.wait(asyncio.Event()))
    assert await asyncio.to_thread(upgrade, FOLDER, url)
    await asyncio.wait_for(waiting, 10)
    connection = await asyncpg.connect(url)
    await connection.execute("DROP TABLE alembic_version")
    await connection.close()
    await schema.check()


async def test_a_newer_schema_is_there_too(settings: ServiceSettings, tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "0001_initial.py").touch()
    await Schema(settings, tmp_path, role="api").check()


async def test_a_stop_ends_the_wait_for_a_database_that_does_not_answer(settings: ServiceSettings) -> None:
    stop = asyncio.Event()
    nowhere = settings.model_copy(update={"database_url": SecretStr("postgresql://127.0.0.1:1/nowhere")})

    async def is_logged() -> bool:
        return "waiting for the database's schema" in [line["event"] for line in logs]

    with capture_logs() as logs:
        waiting = asyncio.create_task(Schema(nowhere, FOLDER, role="relay").wait(stop))
        await eventually(is_logged)
        stop.set()
        await asyncio.wait_for(waiting, 10)
