"""The relay while a transaction, such as a backup's, keeps PostgreSQL from removing the outbox's deleted rows."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from bench.backbone import TYPE, ShopSettings, backbone, relay_catches_up
from bench.scale import Scale
from bench.table import Goal, Rounds, Table
from common.db.driver import driver_dsn

LIMIT = 90.0
FILL = """
    INSERT INTO outbox (event_id, type, subject, version, occurred_at, data)
    SELECT gen_random_uuid(), $1, n::text, 1, now(), '{"number": 1}' FROM generate_series(1, $2::int) n"""


async def run(scale: Scale, table: Table) -> None:
    rounds, events, started_after = Rounds(), scale.events, scale.events // 4
    async with backbone() as free, backbone() as held, _deleted_rows(held, scale.dead):
        for _ in range(min(scale.rounds, 3)):
            for name, settings in (("free", free), ("held", held)):
                measure = partial(
                    relay_catches_up, settings, events, empties=settings is free, started_after=started_after
                )
                await rounds.measure(name, measure, within=LIMIT)
    table.add(
        f"the relay catching up, after its first {started_after:,}", rounds.median("free"), "/s", key="relay, free"
    )
    what = f"the same, {scale.dead:,} deleted rows held, and ÷"
    ratio = rounds.ratio("held", "free")
    table.add(what, rounds.median("held"), "/s", ratio=ratio, goal=Goal(0.9, 0.97), key="held ÷ free")
    for name, label in (("free", "an event"), ("held", "an event, rows held")):
        table.add(f"processor time of PostgreSQL: {label}", rounds.median(name, "postgres"), "µs")


@asynccontextmanager
async def _deleted_rows(settings: ShopSettings, count: int) -> AsyncIterator[None]:
    """Keeps that many deleted rows in the outbox by a snapshot from before their deletion."""
    dsn = driver_dsn(settings.database_url.get_secret_value())
    writer, holder = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    await writer.execute(FILL, TYPE, count, timeout=300)
    await holder.execute("SET idle_in_transaction_session_timeout = 0")
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await holder.fetchval("SELECT pg_current_snapshot()")
    await writer.execute("DELETE FROM outbox", timeout=300)
    await writer.execute("CHECKPOINT", timeout=300)
    try:
        yield
    finally:
        await holder.close()
        await writer.close()
