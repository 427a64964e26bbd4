"""Counts what the clients of a database send, and what the server writes for them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mode
from typing import Final

import asyncpg

from bench.counting_proxy import Counter, Transaction, counting
from bench.written_log import WrittenLog
from common.testing.plugin import eventually, private_database

NOTIFY: Final = "NOTIFY"


@dataclass(frozen=True)
class Cost:
    """Of one order, change or event. `control` counts BEGIN and COMMIT, `notify` NOTIFY, on a connection of its own."""

    statements: float
    control: float
    round_trips: float
    notify: float
    wal_bytes: float


class Meter:
    """Counts what clients of `url` send, and what the server writes for them."""

    def __init__(self, url: str, direct_url: str, counter: Counter, log: WrittenLog) -> None:
        self.url = url
        self.direct_url = direct_url
        self._counter = counter
        self._log = log
        self._seen = 0

    async def begin(self) -> None:
        self._seen = len(self._counter.transactions)
        await self._log.begin()

    def transactions(self) -> list[Transaction]:
        return self._counter.transactions[self._seen :]

    async def notified(self, times: int) -> None:
        """Waits until that many NOTIFY were sent since `begin`: their place between the requests is not fixed."""

        async def sent() -> bool:
            return sum(each.has(NOTIFY) for each in self.transactions()) >= times

        await eventually(sent)

    async def of_request(self, requests: Sequence[Sequence[Transaction]]) -> Cost:
        """The usual cost of a request: of most of them, without what happens beside them now and then."""
        own = [[each for each in request if not each.has(NOTIFY)] for request in requests]
        statements = mode(_statements(request) for request in own)
        control = mode(_control(request) for request in own)
        round_trips = mode(sum(each.round_trips for each in request) for request in own)
        notify = mode(sum(each.has(NOTIFY) for each in request) for request in requests)
        return Cost(statements, control, round_trips, notify, round(await self._log.read() / len(requests)))

    async def of_batches(self, words: str, events: int, full: int, *, rows: int = 1) -> Cost:
        """The cost of an event, from the batches of `full` events. The statement that contains `words` has that many
        `rows` for each event.
        """
        batches = [each for each in self.transactions() if each.rows_of(words) == full * rows]
        if not batches:
            raise RuntimeError(f"no batch was full ({full} rows of {words!r})")
        statements = mode(_statements([each]) for each in batches)
        control = mode(_control([each]) for each in batches)
        round_trips = mode(each.round_trips for each in batches)
        wal = round(await self._log.read() / events)
        return Cost(statements / full, control / full, round_trips / full, 0, wal)


def _statements(transactions: Sequence[Transaction]) -> int:
    return sum(not statement.is_control for each in transactions for statement in each.statements)


def _control(transactions: Sequence[Transaction]) -> int:
    return sum(statement.is_control for each in transactions for statement in each.statements)


@asynccontextmanager
async def metered(migrations: Path) -> AsyncIterator[Meter]:
    """A meter of a migrated database."""
    async with private_database(migrations) as direct_url, counting(direct_url) as (url, counter):
        connection = await asyncpg.connect(direct_url)
        log = WrittenLog(connection)
        await log.prepare()
        yield Meter(url, direct_url, counter, log)
        await connection.close()
