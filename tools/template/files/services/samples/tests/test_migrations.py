import asyncio
from pathlib import Path

import alembic.command

from common.db.migrations import config, upgrade
from common.testing.plugin import MakeDatabase

FOLDER = Path(__file__).parents[1] / "migrations"


async def test_migrations_go_down_to_nothing_and_up_again(make_database: MakeDatabase) -> None:
    url = await make_database(FOLDER)
    await asyncio.to_thread(alembic.command.downgrade, config(FOLDER, url), "base")
    assert await asyncio.to_thread(upgrade, FOLDER, url)
    assert not await asyncio.to_thread(upgrade, FOLDER, url)


async def test_alembic_finds_nothing_to_generate(make_database: MakeDatabase) -> None:
    url = await make_database(FOLDER)
    await asyncio.to_thread(alembic.command.check, config(FOLDER, url))
