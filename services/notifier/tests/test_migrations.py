"""Migrations run up, down and up again, and create what the models declare."""

import asyncio

import alembic.command
import asyncpg
import pytest
import sqlalchemy.exc

from common.db.database import new_id, utc_now
from common.db.migrations import config, upgrade
from common.testing.plugin import MakeDatabase

from .conftest import MIGRATIONS


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows} - {"alembic_version"}


async def test_migrations_go_down_to_nothing_and_up_again(make_database: MakeDatabase) -> None:
    url = await make_database(MIGRATIONS)
    before = await tables(url)
    ours = {"contacts", "notifications", "deliveries", "unverified_mails", "webhooks", "webhook_deliveries"}
    ours |= {"webhook_attempts", "webhook_clients", "audit_records"}
    assert before == ours | {"inbox", "inbox_default", "parked_messages", "aggregate_versions", "deferred_messages"}
    await asyncio.to_thread(alembic.command.downgrade, config(MIGRATIONS, url), "base")
    assert await tables(url) == set()
    assert await asyncio.to_thread(upgrade, MIGRATIONS, url)
    assert await tables(url) == before
    assert not await asyncio.to_thread(upgrade, MIGRATIONS, url)


async def test_models_and_migrations_do_not_drift(make_database: MakeDatabase) -> None:
    url = await make_database(MIGRATIONS)
    await asyncio.to_thread(alembic.command.check, config(MIGRATIONS, url))


async def test_after_a_failure_the_migrations_of_release_0_2_run_again(make_database: MakeDatabase) -> None:
    """A row that no check allows, and an index that an interrupted run left invalid. Deliveries get their orders."""
    url = await make_database(MIGRATIONS)
    await asyncio.to_thread(alembic.command.downgrade, config(MIGRATIONS, url), "0007")
    connection = await asyncpg.connect(url)
    try:
        webhook, other, order, person = (new_id() for _ in range(4))
        for each in (webhook, other):
            await connection.execute(
                "INSERT INTO webhooks (id, user_id, url, host, event_types, secret)"
                " VALUES ($1, $2, 'https://a.invalid/', 'a.invalid:443', '{orders.order.placed.v1}', '')",
                each,
                person,
            )
        events = {}
        for state in ("shipped", "confirmed", "placed"):
            events[state] = new_id()
            await connection.execute(
                "INSERT INTO notifications (id, user_id, kind, order_id, data, created_at)"
                " VALUES ($1, $2, $3, $4, '{}', now())",
                events[state],
                person,
                f"order_{state}",
                order,
            )
            for each in (webhook, other):
                is_sent = each == webhook and state == "placed"
                await connection.execute(
                    "INSERT INTO webhook_deliveries (webhook_id, event_id, type, host, state, settled_at)"
                    " VALUES ($1, $2, $3, 'a.invalid:443', $4, $5)",
                    each,
                    events[state],
                    f"orders.order.{state}.v1",
                    "sent" if is_sent else "pending",
                    utc_now() if is_sent else None,
                )
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(
                "CREATE UNIQUE INDEX CONCURRENTLY ix_webhook_deliveries_queue ON webhook_deliveries (host)"
            )
        await connection.execute(
            "ALTER TABLE notifications DROP CONSTRAINT ck_notifications_kind;"
            "INSERT INTO notifications (id, user_id, kind, data, created_at)"
            " VALUES (gen_random_uuid(), gen_random_uuid(), 'unknown', '{}', now());"
            "ALTER TABLE notifications ADD CONSTRAINT ck_notifications_kind CHECK (kind <> 'unknown') NOT VALID"
        )
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            await asyncio.to_thread(upgrade, MIGRATIONS, url)
        await connection.execute("DELETE FROM notifications WHERE kind = 'unknown'")
        assert await asyncio.to_thread(upgrade, MIGRATIONS, url)
        assert not await connection.fetch("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid")
        rows = await connection.fetch(
            "SELECT type, state FROM webhook_deliveries WHERE order_id = $1 ORDER BY webhook_id, order_version", order
        )
        assert [(row["type"].split(".")[2], row["state"]) for row in rows] == [
            ("placed", "sent"),
            ("confirmed", "pending"),
            ("shipped", "waiting"),
            ("placed", "pending"),
            ("confirmed", "waiting"),
            ("shipped", "waiting"),
        ]
    finally:
        await connection.close()
    await asyncio.to_thread(alembic.command.check, config(MIGRATIONS, url))
    await asyncio.to_thread(alembic.command.downgrade, config(MIGRATIONS, url), "0007")
