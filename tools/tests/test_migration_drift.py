"""Models and migrations are compared down to their CHECK constraints."""

import asyncio
from pathlib import Path

import asyncpg

from common.testing.plugin import MakeDatabase
from waybill_dev.base.state import find_state
from waybill_dev.checks.migration_drift import drift


def folder() -> Path:
    return find_state().checkout / "services" / "users" / "migrations"


async def found(url: str) -> list[str]:
    return await asyncio.to_thread(lambda: list(drift(folder(), url)))


async def test_migrations_that_create_the_models_constraints_have_no_drift(make_database: MakeDatabase) -> None:
    assert await found(await make_database(folder())) == []


async def test_a_constraint_that_differs_is_shown_with_both_definitions(make_database: MakeDatabase) -> None:
    url = await make_database(folder())
    connection = await asyncpg.connect(url)
    await connection.execute("ALTER TABLE users DROP CONSTRAINT ck_users_role, DROP CONSTRAINT ck_users_age")
    await connection.execute("ALTER TABLE users ADD CONSTRAINT ck_users_role CHECK (role IN ('user', 'admin'))")
    await connection.close()
    age, role = await found(url)
    assert age.startswith("users: ck_users_age is missing in the migrations, CHECK ")
    assert "'staff'" in role.partition("in the migrations")[2]
