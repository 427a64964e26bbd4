"""The count: what was acknowledged against what every service has, event by event."""

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
class Line:
    """`repeated` is what at-least-once delivery allows; `lost`, `double` and `disordered` must be 0."""

    what: str
    expected: int
    seen: int
    lost: int
    double: int
    disordered: int | None = None
    repeated: int | None = None

    @property
    def is_well(self) -> bool:
        return not (self.lost or self.double or self.disordered)


async def count(
    status: dict[str, Any], purchases: Purchases, received: Iterable[tuple[str, int]], since: datetime, mail_log: Path
) -> list[Line]:
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
    heard = {order for user in purchases.hears_by_mail for order in purchases.orders_of[user]}
    mailed = {event_id for event_id, (order, _) in events.items() if order in heard}
    return [
        _changes(ours, versions),
        _stream("events published", changes, [(row["subject"], row["version"]) for row in logged], once=True),
        _stream("events, as a subscriber got them", changes, arrived, once=False),
        _set("events received by notifier", set(events), [event_id for event_id in events if event_id in inbox]),
        _told(set(events), notifications),
        await asyncio.to_thread(_mails, Path(status["mail"]["maildir"]), mail_log, purchases.domain, mailed),
    ]


def _changes(acknowledged: dict[str, int], versions: dict[str, int]) -> Line:
    expected = Counter(acknowledged)
    found = Counter(versions)
    lost, double = expected - found, found - expected
    return Line("changes of orders", expected.total(), found.total(), lost.total(), double.total())


def _stream(what: str, expected: set[tuple[str, int]], seen: list[tuple[str, int]], *, once: bool) -> Line:
    """In order means: an aggregate's version comes, the first time, after the version before it."""
    distinct: set[tuple[str, int]] = set()
    disordered = 0
    for order, version in seen:
        if (order, version) not in distinct and version > 1 and (order, version - 1) not in distinct:
            disordered += 1
        distinct.add((order, version))
    again = len(seen) - len(distinct)
    unknown = len(distinct - expected)
    return Line(
        what,
        len(expected),
        len(distinct),
        len(expected - distinct),
        unknown + (again if once else 0),
        disordered,
        None if once else again,
    )


def _set(what: str, expected: set[str], seen: list[str]) -> Line:
    distinct = set(seen)
    return Line(what, len(expected), len(distinct), len(expected - distinct), len(seen) - len(expected & distinct))


def _told(events: set[str], notifications: list[asyncpg.Record]) -> Line:
    """A double effect is a notification without an event of its own, or the second one of an order's state."""
    found = _set("notifications", events, [row["id"] for row in notifications])
    states = len({(row["order_id"], row["kind"]) for row in notifications})
    return dataclasses.replace(found, double=found.double + len(notifications) - states)


def _mails(maildir: Path, log: Path, domain: str, expected: set[str]) -> Line:
    """A mail is told from its repetition by the Message-ID, which begins with the event's id."""
    seen: dict[str, str] = {}
    for file in maildir.glob("*.eml"):
        mail = read_mail(file)
        if str(mail["To"]).rstrip(">").endswith(f"@{domain}"):
            seen[file.name] = str(mail["Message-ID"]).strip("<>").partition("@")[0]
    taken = Counter(line.split()[1] for line in _lines(log) if line.startswith("250 "))
    again = sum(taken[name] - 1 for name in seen if taken[name])
    return dataclasses.replace(_set("mails", expected, list(seen.values())), repeated=again)


def _lines(log: Path) -> Iterable[str]:
    for file in sorted(log.parent.glob(f"{log.name}*")):
        yield from file.read_text(errors="replace").splitlines()
