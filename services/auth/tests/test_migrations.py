"""The migrations create what the models declare, and can be undone."""

import asyncio
from pathlib import Path

import pytest
from alembic import command
from alembic.util.exc import CommandError

from auth.settings import Settings
from common.db.migrations import config

MIGRATIONS = Path(__file__).parents[1] / "migrations"


async def test_the_migrations_match_the_models(settings: Settings) -> None:
    alembic = config(MIGRATIONS, settings.database_url.get_secret_value())
    await asyncio.to_thread(command.check, alembic)


async def test_down_and_up_again(settings: Settings) -> None:
    alembic = config(MIGRATIONS, settings.database_url.get_secret_value())
    await asyncio.to_thread(command.downgrade, alembic, "base")
    with pytest.raises(CommandError):
        await asyncio.to_thread(command.check, alembic)
    await asyncio.to_thread(command.upgrade, alembic, "head")
    await asyncio.to_thread(command.check, alembic)
