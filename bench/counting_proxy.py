"""A proxy before PostgreSQL that counts what its clients send, by PostgreSQL's protocol.

https://www.postgresql.org/docs/current/protocol-message-formats.html. Exact on any machine, and without an extension.
"""

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_WAITED_FOR: Final = b"QSH"
"""Messages after which a client waits for the server: simple query, sync and flush."""
_TRANSACTION_CONTROL: Final = re.compile(r"\s*(BEGIN|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE)


@dataclass
class Statement:
    text: str
    rows: int = 0
    """As the server's command tag says."""

    @property
    def is_control(self) -> bool:
        return _TRANSACTION_CONTROL.match(self.text) is not None


@dataclass
class Transaction:
    """What one connection sent from BEGIN to COMMIT, or a statement that was its own transaction. Preparing counts."""

    statements: list[Statement] = field(default_factory=list)
    round_trips: int = 0

    def rows_of(self, words: str) -> int:
        """How many rows the statements that contain `words` wrote or returned."""
        return sum(statement.rows for statement in self.statements if words in statement.text)

    def has(self, words: str) -> bool:
        return any(words in statement.text for statement in self.statements)


class Counter:
    """The transactions that have ended, in order, over all connections."""

    def __init__(self) -> None:
        self.transactions: list[Transaction] = []


class _Session:
    """One connection: follows both directions. Prepared statements and portals have names, "" included."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._prepared: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}
        self._awaiting_tag: list[Statement] = []
        self._open = Transaction()

    def from_client(self, kind: bytes, body: bytes) -> None:
        if kind == b"P":
            name, text = body.split(b"\0", 2)[:2]
            self._prepared[name] = text.decode()
        elif kind == b"B":
            portal, name = body.split(b"\0", 2)[:2]
            self._portals[portal] = self._prepared.get(name, "")
        elif kind == b"E":
            self._sent(self._portals.get(body.split(b"\0", 1)[0], ""))
        elif kind == b"Q":
            self._sent(body.rstrip(b"\0").decode())
        if kind in _WAITED_FOR:
            self._open.round_trips += 1

    def _sent(self, text: str) -> None:
        statement = Statement(text)
        self._open.statements.append(statement)
        self._awaiting_tag.append(statement)

    def from_server(self, kind: bytes, body: bytes) -> None:
        if kind == b"C" and self._awaiting_tag:
            last_word = body.rstrip(b"\0").split()[-1]
            self._awaiting_tag.pop(0).rows = int(last_word) if last_word.isdigit() else 0
        elif kind == b"Z":
            self._awaiting_tag.clear()
            if body == b"I" and self._open.statements:  # idle: no transaction is open
                self._counter.transactions.append(self._open)
                self._open = Transaction()


@asynccontextmanager
async def counting(database_url: str) -> AsyncIterator[tuple[str, Counter]]:
    """Yields the URL of the proxy, and what it counts. Clients must not ask for TLS (`PGSSLMODE=disable`)."""
    server, counter = urlsplit(database_url), Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        above, below = await asyncio.open_connection(server.hostname, server.port)
        session = _Session(counter)
        try:
            length = await reader.readexactly(4)  # the startup message has no type
            below.write(length + await reader.readexactly(struct.unpack("!I", length)[0] - 4))
            to_server = _follow(reader, below, session.from_client)
            await asyncio.gather(to_server, _follow(above, writer, session.from_server))
        finally:
            writer.close()
            below.close()

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = proxy.sockets[0].getsockname()[1]
        netloc = f"{server.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
        yield urlunsplit(server._replace(netloc=netloc)), counter
    finally:
        proxy.close()


async def _follow(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Callable[[bytes, bytes], None]
) -> None:
    """Passes messages on, each shown to `seen` first, until one side closes."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
            seen(head[:1], body)
            writer.write(head + body)
            await writer.drain()
    writer.close()
