from prometheus_client import REGISTRY
from sqlalchemy import text

from common.db.database import Database
from common.messaging.backlog_metrics import measuring_outbox, measuring_parked_messages
from common.testing.plugin import eventually


async def test_the_outbox_backlog_is_measured_without_a_broker(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO outbox (event_id, type, subject, version, occurred_at, data)"
                " SELECT gen_random_uuid(), 'a.b.c.v1', 's', n, now() - interval '1 minute', '{}'"
                " FROM generate_series(1, 3) n"
            )
        )

    async def measured() -> bool:
        age = REGISTRY.get_sample_value("waybill_outbox_oldest_age_seconds") or 0
        return REGISTRY.get_sample_value("waybill_outbox_pending") == 3 and age >= 60

    async with measuring_outbox(database.endpoint, "test"):
        await eventually(measured)


async def test_parked_messages_are_measured_until_they_are_resolved(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO parked_messages (id, consumer, cause, attempts, body, properties, resolved_at, resolution)"
                " VALUES (gen_random_uuid(), 'c', 'x', 1, '', '{}', NULL, NULL),"
                " (gen_random_uuid(), 'c', 'x', 1, '1', '{}', now(), 'discarded')"
            )
        )

    async def measured() -> bool:
        return REGISTRY.get_sample_value("waybill_parked_messages") == 1

    async with measuring_parked_messages(database.endpoint, "test"):
        await eventually(measured)
