"""Random interleavings of commits, relays, crashes and readers: every reader gets exactly what it may see, in order."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import asyncpg
import hypothesis.strategies as st
from hypothesis.stateful import initialize, invariant, rule

from common.db.database import Database, new_id
from common.feed.log import Feed, View
from common.feed.streams import Reader
from common.messaging import outbox_partitions
from common.runtime.background import background
from common.security.tokens import Principal
from common.testing.plugin import eventually
from common.testing.state_machine import AsyncStateMachine, examples, explore, in_loop
from orders import queries
from orders.events import TYPES

CUSTOMERS: Final = 2
ANYBODY: Final = Principal(
    subject="x",
    client_id="x",
    audiences=frozenset(),
    scopes=frozenset(),
    roles=frozenset(),
    session_id=None,
    session_version=None,
    auth_time=None,
    token_id="x",
    issued_at=0,
    expires_at=0,
)
READERS: Final = 4
PARTITIONS: Final = st.sets(st.sampled_from(outbox_partitions.PARTITIONS), min_size=1).map(sorted)


@dataclass
class Subscriber:
    """A reader that keeps the id of its last event, and reconnects to any process."""

    view: View
    types: frozenset[str]
    began_at: int
    """Position of the log when it began."""
    seen: list[UUID] = field(default_factory=list)
    reader: Reader | None = None


class FeedOfOrders(AsyncStateMachine):
    def __init__(self, desk: Any, feeds: Sequence[Feed], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.desk, self.feeds = desk, feeds
        self.customers = [new_id() for _ in range(CUSTOMERS)]
        self.orders: list[UUID] = []
        self.subscribers: list[Subscriber] = []

    @initialize(types=st.lists(st.sets(st.sampled_from(TYPES)), min_size=READERS, max_size=READERS))
    @in_loop
    async def begin(self, types: list[set[str]]) -> None:
        await self.desk.stock("LAMP")
        self.orders = [(await self.desk.place(("LAMP", 1), customer_id=self.customers[0])).id]
        await self.relay(list(outbox_partitions.PARTITIONS), crashes=False)
        views = [View(), View(owner=str(self.customers[0])), View(owner=str(self.customers[1]))]
        views.append(View(subject=str(self.orders[0])))
        for view, of_types in zip(views, types, strict=True):
            newest, _ = await self.feeds[0].newest(View())
            self.subscribers.append(Subscriber(view, frozenset(of_types), newest))
            self.subscribers[-1].reader = Reader(self.feeds[0], view, frozenset(of_types), newest, ANYBODY)

    @rule(customer=st.integers(0, CUSTOMERS - 1), count=st.integers(1, 3))
    @in_loop
    async def commit_orders(self, customer: int, count: int) -> None:
        placing = (self.desk.place(("LAMP", 1), customer_id=self.customers[customer]) for _ in range(count))
        self.orders += [order.id for order in await asyncio.gather(*placing)]

    @rule(step=st.sampled_from(["confirm", "cancel"]), which=st.integers(0, 5))
    @in_loop
    async def commit_change(self, step: str, which: int) -> None:
        with contextlib.suppress(Exception):  # not in this state
            await self.desk.do(step, self.orders[-1 - which % len(self.orders)])

    @rule(first=PARTITIONS, second=PARTITIONS, crashes=st.booleans())
    @in_loop
    async def two_relays(self, first: list[int], second: list[int], *, crashes: bool) -> None:
        await asyncio.gather(self.relay(first, crashes=crashes), self.relay(second, crashes=False))

    async def relay(self, partitions: list[int], *, crashes: bool) -> None:
        """Moves what waits in the partitions. A crash comes after the move, before the commit."""
        connection = await asyncpg.connect(self.desk.database.dsn)
        try:
            transaction = connection.transaction()
            await transaction.start()
            if locked := await outbox_partitions.lock(connection, partitions):
                rows = await outbox_partitions.oldest(connection, locked, 0, 500, [])
                await outbox_partitions.move(connection, locked, rows)
            if crashes:
                return
            await transaction.commit()
            if len(partitions) % 2:  # the other notifications are lost
                await connection.execute("NOTIFY event_log")
        finally:
            connection.terminate()

    @rule(who=st.integers(0, READERS - 1), limit=st.integers(1, 3))
    @in_loop
    async def read(self, who: int, limit: int) -> None:
        subscriber = self.subscribers[who]
        assert subscriber.reader is not None
        subscriber.seen += [event.id for event in await subscriber.reader.next(limit)]

    @rule(who=st.integers(0, READERS - 1))
    @in_loop
    async def wait_for_event(self, who: int) -> None:
        reader = self.subscribers[who].reader
        assert reader is not None
        if not (events := await reader.next(100)):
            await reader.wait(0.01)
        self.subscribers[who].seen += [event.id for event in events]

    @rule(who=st.integers(0, READERS - 1), process=st.integers(0, 1))
    @in_loop
    async def reconnect(self, who: int, process: int) -> None:
        """What was sent and not received is lost with the connection, so the reader knows only what it has."""
        await self.resume(self.subscribers[who], self.feeds[process])

    async def resume(self, subscriber: Subscriber, feed: Feed) -> None:
        position = subscriber.began_at
        if subscriber.seen:
            position = await feed.position_of(subscriber.seen[-1], subscriber.view)
        subscriber.reader = Reader(feed, subscriber.view, subscriber.types, position, ANYBODY)

    @rule(process=st.integers(0, 1))
    @in_loop
    async def forget(self, process: int) -> None:
        """As time does: readers that are behind read from the table."""
        self.feeds[process]._forget()

    @invariant()
    @in_loop
    async def readers_have_a_part_without_gaps(self) -> None:
        for subscriber in self.subscribers:
            visible = await self.visible(subscriber)
            assert subscriber.seen == visible[: len(subscriber.seen)]

    def teardown(self) -> None:
        if self.subscribers:
            self.wait_for_all()

    def wait_for_all(self) -> None:
        async def finish() -> None:
            await self.relay(list(outbox_partitions.PARTITIONS), crashes=False)
            for subscriber in self.subscribers:
                visible = await self.visible(subscriber)

                async def has_all(subscriber: Subscriber = subscriber, visible: list[UUID] = visible) -> bool:
                    assert subscriber.reader is not None
                    subscriber.seen += [event.id for event in await subscriber.reader.next(2)]
                    return subscriber.seen == visible

                await eventually(has_all)

        self._loop.run_until_complete(finish())

    async def visible(self, subscriber: Subscriber) -> list[UUID]:
        rows = await self.desk.rows(
            "SELECT event_id, type, subject, data ->> 'customer_id' AS owner FROM event_log"
            " WHERE position > :position ORDER BY position",
            position=subscriber.began_at,
        )
        view, types = subscriber.view, subscriber.types
        return [
            row["event_id"]
            for row in rows
            if view.shows(row["owner"], row["subject"]) and (not types or row["type"] in types)
        ]


@examples(5, 15)
def test_every_reader_gets_what_it_may_see_once_and_in_order(
    desk: Any, database: Database, loop: asyncio.AbstractEventLoop, examples: int
) -> None:
    def made() -> Feed:
        owner, owned = queries.EVENTS_CUSTOMER, queries.CUSTOMERS_SUBJECTS
        return Feed(database, name="orders-test", owner=owner, owned=owned, timeout=10)

    async def start() -> tuple[contextlib.AsyncExitStack, list[Feed]]:
        stack = contextlib.AsyncExitStack()
        feeds = [made(), made()]
        for feed in feeds:
            stack.push_async_callback(feed.close)
        await stack.enter_async_context(background(*(feed.run for feed in feeds)))

        async def have_begun() -> bool:
            return all(feed._end >= 0 for feed in feeds)

        await eventually(have_begun)
        return stack, feeds

    stack, feeds = loop.run_until_complete(start())
    try:
        explore(lambda: FeedOfOrders(desk, feeds, loop), examples=examples, steps=25)
    finally:
        loop.run_until_complete(stack.aclose())
