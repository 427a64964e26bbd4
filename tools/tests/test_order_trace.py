"""Traces an order in notifier's database, of any released version of the service."""

import asyncio
from uuid import uuid4

import alembic.command
import asyncpg
import pytest

from common.db.migrations import config
from common.testing.plugin import MakeDatabase
from waybill_dev.base.state import find_state
from waybill_dev.journeys.order_trace import notifier_hops

MIGRATIONS = find_state().checkout / "services" / "notifier" / "migrations"
BEFORE_WEBHOOKS = "0004"


@pytest.mark.parametrize("revision", ["head", BEFORE_WEBHOOKS])
async def test_a_notification_is_traced_in_the_database_of_any_version(
    revision: str, make_database: MakeDatabase
) -> None:
    url = await make_database(MIGRATIONS)
    if revision != "head":
        await asyncio.to_thread(alembic.command.downgrade, config(MIGRATIONS, url), revision)
    event_id, order_id = uuid4(), uuid4()
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO inbox (consumer, event_id) VALUES ('notifier.inbound', $1)", event_id)
    await connection.close()
    (hop,) = await notifier_hops(url, order_id, [event_id])
    assert hop.where == "notifier consume"
