"""Traces one order through the services, hop by hop, from their own records."""

import asyncio
import email
import email.policy
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from waybill_dev.errors import LocalError

TIMELINE = "SELECT version, type, occurred_at FROM order_timeline WHERE order_id = $1 ORDER BY version"
WAITING = "SELECT version, type FROM outbox WHERE subject = $1 ORDER BY id"
PUBLISHED = """SELECT event_id, version, type, published_at FROM event_log WHERE subject = $1
               ORDER BY published_at, position"""
RECEIVED = "SELECT event_id, received_at FROM inbox WHERE consumer = 'notifier.inbound' AND event_id = ANY($1::uuid[])"
PARKED = """SELECT cause, parked_at FROM parked_messages
            WHERE resolved_at IS NULL AND event_id = ANY($1::uuid[]::text[])"""
DELIVERIES = """SELECT notification_id, kind, channel, state, cause, attempts, deliveries.created_at, settled_at
                FROM deliveries JOIN notifications ON notifications.id = notification_id WHERE order_id = $1"""
POSTED = """SELECT 'webhook' AS channel, w.type AS kind, state, cause, attempts, w.created_at, settled_at
            FROM webhook_deliveries w JOIN notifications n ON n.id = event_id WHERE n.order_id = $1"""
# Releases of notifier before webhooks have no such table.
HAS_POSTED = "SELECT to_regclass('webhook_deliveries') IS NOT NULL"
NOTIFIED = "SELECT id, kind FROM notifications WHERE order_id = $1"


@dataclass(frozen=True)
class Hop:
    at: datetime
    where: str
    what: str


async def trace(status: dict[str, Any], order_id: UUID) -> list[Hop]:
    """Returns the order's hops so far, sorted by time. `status` is the content of `./dev status --json`.

    Raises LocalError when the order does not exist or a database is unavailable.
    """
    services = status["services"]
    try:
        hops, event_ids = await _order_hops(services["orders"]["database_url"], order_id)
        hops += await notifier_hops(services["notifier"]["database_url"], order_id, event_ids)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise LocalError(f"a database is unavailable: {type(error).__name__} {error}") from error
    hops += await asyncio.to_thread(_mail_hops, Path(status["mail"]["maildir"]), event_ids)
    return sorted(hops, key=lambda hop: hop.at)


async def _order_hops(database_url: str, order_id: UUID) -> tuple[list[Hop], list[UUID]]:
    """The hops that orders recorded, and the ids of the published events."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            changes = await connection.fetch(TIMELINE, order_id)
            waiting = await connection.fetch(WAITING, str(order_id))
            published = await connection.fetch(PUBLISHED, str(order_id))
    finally:
        await connection.close()
    if not changes:
        raise LocalError(f"there is no order {order_id}")
    hops = [Hop(row["occurred_at"], "orders", f"{row['type']} committed, with its event") for row in changes]
    hops += [Hop(row["published_at"], "orders relay", f"{row['type']} confirmed by RabbitMQ") for row in published]
    hops += [Hop(datetime.now(UTC), "orders outbox", f"{row['type']} still waits for the relay") for row in waiting]
    return hops, [row["event_id"] for row in published]


async def notifier_hops(database_url: str, order_id: UUID, event_ids: list[UUID]) -> list[Hop]:
    """The events that notifier received, and its deliveries."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        received = await connection.fetch(RECEIVED, event_ids)
        parked = await connection.fetch(PARKED, event_ids)
        kinds = {row["id"]: row["kind"] for row in await connection.fetch(NOTIFIED, order_id)}
        deliveries = await connection.fetch(DELIVERIES, order_id)
        if await connection.fetchval(HAS_POSTED):
            deliveries += await connection.fetch(POSTED, order_id)
    finally:
        await connection.close()
    hops = []
    for row in received:
        kind = kinds.get(row["event_id"])
        effect = f"notification {kind}, committed with the inbox" if kind else "no notification"
        hops.append(Hop(row["received_at"], "notifier consume", f"event received: {effect}"))
    hops += [Hop(row["parked_at"], "notifier consume", f"event parked: {row['cause']}") for row in parked]
    hops += [_delivery_hop(row) for row in deliveries]
    return hops


def _delivery_hop(row: asyncpg.Record) -> Hop:
    what = f"{row['channel']} of {row['kind']} {row['state']}"
    if row["settled_at"] is None:
        tried = f" after {row['attempts']} attempts: {row['cause']}" if row["cause"] else ""
        return Hop(row["created_at"], "notifier deliver", what + tried)
    return Hop(row["settled_at"], "notifier deliver", what + (f": {row['cause']}" if row["cause"] else ""))


def _mail_hops(maildir: Path, event_ids: Iterable[UUID]) -> list[Hop]:
    """The mails whose Message-ID begins with the id of one of the events."""
    wanted = {str(event_id) for event_id in event_ids}
    hops = []
    for file in maildir.glob("*"):
        message = read_mail(file)
        if str(message["Message-ID"]).strip("<>").partition("@")[0] in wanted:
            received = datetime.fromtimestamp(file.stat().st_mtime, UTC)
            hops.append(Hop(received, "mail", f"e-mail received: {message['Subject']}"))
    return hops


def read_mail(file: Path) -> EmailMessage:
    return email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
