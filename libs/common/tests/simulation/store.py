"""PostgreSQL for the simulation: rows in memory, READ COMMITTED.

A transaction's writes appear together at its commit, or never. A lock is held until the transaction ends. A statement
takes its time on the way to the server and back, and at each of these points the connection can be lost: so the
outcome of a commit can be unknown.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any, Final

from .loop import PROCESS

Key = Hashable
Lock = tuple[Key, ...]
"""Its kind and what it locks."""
TIMEOUT: Final = 6.0
"""Seconds for one statement."""


class Store:
    """`delay` is the time of a statement in seconds. `is_first` decides whether it passes after its execution."""

    endpoint = None

    def __init__(self, delay: Callable[[], float], is_first: Callable[[], bool]) -> None:
        self.delay = delay
        self.is_first = is_first
        self.tables: defaultdict[str, dict[Key, Any]] = defaultdict(dict)
        self.sessions: list[Session] = []
        self.is_down = False
        self._owners: dict[Lock, Session] = {}
        self._waiting: defaultdict[Lock, list[asyncio.Future[None]]] = defaultdict(list)

    async def connect(self) -> "Session":
        await asyncio.sleep(self.delay())
        if self.is_down:
            raise ConnectionError("the database is down")
        session = Session(self)
        self.sessions.append(session)
        return session

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Session"]:
        session = await self.connect()
        try:
            async with session.transaction():
                yield session
        finally:
            session.end()

    async def ping(self) -> None:
        (await self.connect()).end()

    def owns(self, session: "Session", key: Lock) -> bool:
        """Takes the lock if it is free."""
        if self._owners.setdefault(key, session) is session:
            session.locks[key] = None
            return True
        return False

    async def freed(self, key: Lock) -> None:
        self._waiting[key].append(asyncio.get_running_loop().create_future())
        async with asyncio.timeout(TIMEOUT):
            await self._waiting[key][-1]

    def free(self, key: Lock) -> None:
        del self._owners[key]
        for waiter in self._waiting.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)


class Session:
    """One connection. It has what the code uses of asyncpg's connection and of SQLAlchemy's session."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writes: dict[tuple[str, Key], Any] = {}
        self.process = PROCESS.get()
        self.locks: dict[Lock, None] = {}
        self.is_open = True
        self.writer = 0
        """The number of the transaction, if it writes to the outbox."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self._check()
        try:
            yield
        except BaseException:
            self._finish()
            raise
        await self.run(self._commit)

    async def run(self, statement: Callable[[], Awaitable[Any]]) -> Any:
        """Runs it at the server, before or after its time has passed.

        Raises `ConnectionError` or `TimeoutError` if no answer arrives: then it may have been executed, or not.
        """
        self._check()
        is_first = self._store.is_first()
        if not is_first:
            await self._travel()
        result = await statement()
        if is_first:
            await self._travel()
        return result

    async def lock(self, *key: Key) -> None:
        while not self._store.owns(self, key):
            await self._store.freed(key)
            self._check()

    def try_lock(self, *key: Key) -> bool:
        return self._store.owns(self, key)

    def unlock(self, kind: str) -> None:
        for key in [key for key in self.locks if key[0] == kind]:
            del self.locks[key]
            self._store.free(key)

    def rows(self, table: str) -> dict[Key, Any]:
        """What is committed now, and this transaction's own writes."""
        own = {key: row for (name, key), row in self._writes.items() if name == table}
        rows = self._store.tables[table] | own if own else self._store.tables[table]
        return {key: row for key, row in rows.items() if row is not None} if own else rows

    def row(self, table: str, key: Key) -> Any:
        return self._writes.get((table, key), self._store.tables[table].get(key))

    def write(self, table: str, key: Key, row: Any) -> None:
        """`None` deletes it."""
        self._writes[table, key] = row

    async def fetchval(self, _: str) -> list[str]:
        """The transactions that write to the outbox."""

        async def statement() -> list[str]:
            return [str(each.writer) for each in self._store.sessions if each.writer]

        return await self.run(statement)  # type: ignore[no-any-return]

    async def scalar(self, _: object) -> Any:
        """Since when the consumer keeps the order of a kind."""

        async def statement() -> Any:
            return min(since for _, since in self.rows("versions").values())

        return await self.run(statement)

    def end(self) -> None:
        """The server ends it, and rolls back."""
        if self.is_open:
            self.is_open = False
            self._store.sessions.remove(self)
            self._finish()

    async def _commit(self) -> None:
        for (table, key), row in self._writes.items():
            if row is None:
                self._store.tables[table].pop(key, None)
            else:
                self._store.tables[table][key] = row
        self._finish()

    def _finish(self) -> None:
        self._writes.clear()
        self.writer = 0
        locks, self.locks = self.locks, {}
        for key in locks:
            self._store.free(key)

    async def _travel(self) -> None:
        seconds = self._store.delay()
        await asyncio.sleep(min(seconds, TIMEOUT))
        if seconds > TIMEOUT:
            self.end()
            raise TimeoutError
        self._check()

    def _check(self) -> None:
        if not self.is_open:
            raise ConnectionError("connection lost")
