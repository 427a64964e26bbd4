"""Compares what clients had acknowledged with what every service has, event by event."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg

from waybill_dev.chaos.shoppers import Purchases
from waybill_dev.journeys.order_trace import read_mail

EVENTS = """SELECT event_id::text, subject, version FROM event_log
            WHERE published_at >= $1 ORDER BY published_at, position"""
ORDERS = "SELECT id::text, version FROM orders WHERE customer_id = ANY($1::text[]::uuid[])"
RECEIVED = "SELECT event_id::text FROM inbox WHERE consumer = 'notifier.inbound' AND received_at >= $1"
NOTIFICATIONS = """SELECT id::text, order_id::text, kind FROM notifications
                   WHERE user_id = ANY($1::text[]::uuid[]) AND order_id IS NOT NULL"""


@dataclass(frozen=True)
class CountRow:
    """One comparison. `lost`, `double` and `disordered` must be 0; `repeated` is allowed by at-least-once delivery."""

    what: str
    expected: int
    seen: int
    lost: int
    double: int
    disordered: int | None = None
    repeated: int | None = None

    @property
    def is_correct(self) -> bool:
        return not (self.lost or self.double or self.disordered)


async def count(
    status: dict[str, Any],
    purchases: Purchases,
    received: Iterable[tuple[str, int]],
    since: datetime,
    mail_log: Path,
    *,
    over_http: Iterable[tuple[str, int]] | None = None,
) -> list[CountRow]:
    """`received` is what a subscriber with AMQP got, `over_http` what one of the feed did, if there was one."""
    services = status["services"]
    ours = purchases.changes
    changes = {(order, version) for order, changes in ours.items() for version in range(1, changes + 1)}
    orders = await asyncpg.connect(services["orders"]["database_url"], timeout=10)
    try:
        versions = dict(await orders.fetch(ORDERS, purchases.customers))
        logged = [row for row in await orders.fetch(EVENTS, since) if row["subject"] in versions]
    finally:
        await orders.close()
    notifier = await asyncpg.connect(services["notifier"]["database_url"], timeout=10)
    try:
        inbox = {row["event_id"] for row in await notifier.fetch(RECEIVED, since)}
        notifications = await notifier.fetch(NOTIFICATIONS, purchases.customers)
    finally:
        await notifier.close()
    events = {row["event_id"]: (row["subject"], row["version"]) for row in logged}
    arrived = [one for one in received if one[0] in versions]
    fed = None if over_http is None else [one for one in over_http if one[0] in versions]
    with_mail = {order for user in purchases.mail_customers for order in purchases.orders_of[user]}
    mailed = {event_id for event_id, (order, _) in events.items() if order in with_mail}
    return [
        _changes(ours, versions),
        _stream("events published", changes, [(row["subject"], row["version"]) for row in logged], once=True),
        _stream("events, as a subscriber got them", changes, arrived, once=False),
        *([] if fed is None else [_stream("events, as the feed sent them", changes, fed, once=True)]),
        _set("events received by notifier", set(events), [event_id for event_id in events if event_id in inbox]),
        _notified(set(events), notifications),
        await asyncio.to_thread(_mails, Path(status["mail"]["maildir"]), mail_log, purchases.domain, mailed),
    ]


def _changes(acknowledged: dict[str, int], versions: dict[str, int]) -> CountRow:
    expected = Counter(acknowledged)
    found = Counter(versions)
    lost, double = expected - found, found - expected
    return CountRow("changes of orders", expected.total(), found.total(), lost.total(), double.total())


def _stream(what: str, expected: set[tuple[str, int]], seen: list[tuple[str, int]], *, once: bool) -> CountRow:
    """In order means that a version of an order first arrives after the version before it."""
    distinct: set[tuple[str, int]] = set()
    disordered = 0
    for order, version in seen:
        if (order, version) not in distinct and version > 1 and (order, version - 1) not in distinct:
            disordered += 1
        distinct.add((order, version))
    repeated = len(seen) - len(distinct)
    unknown = len(distinct - expected)
    return CountRow(
        what,
        len(expected),
        len(distinct),
        len(expected - distinct),
        unknown + (repeated if once else 0),
        disordered,
        None if once else repeated,
    )


def _set(what: str, expected: set[str], seen: list[str]) -> CountRow:
    distinct = set(seen)
    return CountRow(what, len(expected), len(distinct), len(expected - distinct), len(seen) - len(expected & distinct))


def _notified(events: set[str], notifications: list[asyncpg.Record]) -> CountRow:
    """A notification is double when it has no event of its own, or is the second for the same state of an order."""
    found = _set("notifications", events, [row["id"] for row in notifications])
    states = len({(row["order_id"], row["kind"]) for row in notifications})
    return dataclasses.replace(found, double=found.double + len(notifications) - states)


def _mails(maildir: Path, log: Path, domain: str, expected: set[str]) -> CountRow:
    """A Message-ID begins with the event's id, so a mail that was delivered twice has the same one."""
    seen: dict[str, str] = {}
    for file in maildir.glob("*.eml"):
        mail = read_mail(file)
        is_about_order = mail["List-Unsubscribe"] is not None
        if is_about_order and str(mail["To"]).rstrip(">").endswith(f"@{domain}"):
            seen[file.name] = str(mail["Message-ID"]).strip("<>").partition("@")[0]
    deliveries = Counter(line.split()[1] for line in _log_lines(log) if line.startswith("250 "))
    repeated = sum(deliveries[name] - 1 for name in seen if deliveries[name])
    return dataclasses.replace(_set("mails", expected, list(seen.values())), repeated=repeated)


def _log_lines(log: Path) -> Iterable[str]:
    for file in sorted(log.parent.glob(f"{log.name}*")):
        yield from file.read_text(errors="replace").splitlines()
