"""The restore drill of docs/operations.md: a lost database is restored from a backup and completed by a replay."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from common.testing.plugin import eventually
from waybill_dev.servers.postgres import binary

from .conftest import Mailbox, Person, Report, plain_text

pytestmark = pytest.mark.slow


async def test_a_lost_database_is_restored_and_events_after_the_backup_are_replayed_without_duplicates(
    stack: Any, customer: Person, mailbox: Mailbox, tmp_path: Path, report: Report
) -> None:
    url, server = stack.status["services"]["notifier"]["database_url"], stack.status["postgres"]["url"]
    backup = tmp_path / "notifier.dump"

    async def ordered() -> list[str]:
        return [(await customer.order()).json()["id"] for _ in range(5)]

    in_backup = await ordered()
    await notified(url, in_backup)
    since = datetime.now(UTC) - timedelta(minutes=5)
    postgres("pg_dump", "--format=custom", f"--file={backup}", url)
    after_backup = await ordered()
    await notified(url, after_backup)
    for order in after_backup:
        await mailbox.wait_for(customer.email, order)
    stack.dev("stop", "notifier")
    try:
        during_outage = await ordered()
        await lose(server, "notifier")
        postgres("pg_restore", f"--dbname={url}", "--no-owner", str(backup))
    finally:
        stack.dev("start", "notifier")
    began = datetime.now(UTC)
    for producer in ("users", "orders"):
        replay = ("events", "replay", "--since", since.isoformat(), "--to-queue", "notifier.inbound")
        stack.dev("ops", producer, *replay)
    everything = [*in_backup, *after_backup, *during_outage]
    await notified(url, everything)
    took = (datetime.now(UTC) - began).total_seconds()
    report(f"{len(everything)} orders, each notified once, {took:.0f} s after the start")
    for order in everything:
        mail = await mailbox.wait_for(customer.email, order)
        ids = {mail["Message-ID"] for mail in mailbox.to(customer.email) if order in plain_text(mail)}
        assert ids == {mail["Message-ID"]}


def postgres(program: str, *words: str) -> None:
    subprocess.run([binary(program), *words], check=True, capture_output=True)  # noqa: S603 - ours


async def lose(server: str, database: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {database} OWNER {database}")
    finally:
        await connection.close()


async def notified(url: str, orders: list[str]) -> None:
    """Waits until each order has one notification. Fails at once if any has two."""

    async def each_once() -> bool:
        connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch(
                "SELECT order_id::text, count(*) FROM notifications WHERE order_id::text = ANY($1) GROUP BY 1", orders
            )
        finally:
            await connection.close()
        assert all(row["count"] == 1 for row in rows)
        return len(rows) == len(orders)

    await eventually(each_once, within=60)
