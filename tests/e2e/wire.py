"""A network that a test can break: TCP through here is held, forgotten or cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

Direction = Literal["up", "down"]
"""Up is towards the server."""


class Wire:
    """Takes each connection to the first of `ports` that answers, as a load balancer does."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._server: asyncio.Server | None = None
        self._open: dict[Direction, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._lines: set[Line] = set()
        self._words: Sequence[bytes] = ()
        self._is_cut = False
        for gate in self._open.values():
            gate.set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def hold(self, direction: Direction) -> None:
        """What goes that way stays on the way, until it is released."""
        self._open[direction].clear()

    def hold_after(self, *words: bytes) -> None:
        """What goes down stays on the way once these went up, one after the other, on any one line."""
        self._words = words

    def _goes_up(self, line: "Line", content: bytes) -> None:
        while line.heard < len(self._words) and self._words[line.heard] in content:
            line.heard += 1
        if self._words and line.heard == len(self._words):
            self.hold("down")

    def release(self) -> None:
        for gate in self._open.values():
            gate.set()

    def forget(self) -> None:
        """As a firewall that loses its table: nothing passes on what is open, nobody is told, new lines are well."""
        for line in self._lines:
            line.silenced = True

    def cut(self) -> None:
        """Ends all connections and takes no more, until it is mended."""
        self._is_cut = True
        for line in list(self._lines):
            line.end()

    def mend(self) -> None:
        self._is_cut = False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ahead = None if self._is_cut else await self._ahead()
            if ahead is None:
                return
            line = Line([reader, ahead[0]], [ahead[1], writer])
            self._lines.add(line)
            try:
                await line.carry(self._open, self._goes_up)
            finally:
                self._lines.discard(line)
        finally:
            writer.close()

    async def _ahead(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in self._ports:
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None


class Line:
    """One connection, with both its ways."""

    def __init__(self, readers: Sequence[asyncio.StreamReader], writers: Sequence[asyncio.StreamWriter]) -> None:
        self.silenced = False
        self.heard = 0
        self._readers = readers
        self._writers = writers

    def end(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def carry(self, gates: dict[Direction, asyncio.Event], goes_up: Callable[["Line", bytes], None]) -> None:
        hear = [goes_up, lambda *_: None]
        ways = zip(self._readers, self._writers, gates.values(), hear, strict=True)
        tasks = [asyncio.create_task(self._way(*way)) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.end()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _way(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        gate: asyncio.Event,
        hear: Callable[["Line", bytes], None],
    ) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(65536):
                hear(self, content)
                await gate.wait()
                if not self.silenced:
                    writer.write(content)
                    await writer.drain()


@contextlib.asynccontextmanager
async def wire_to(*ports: int) -> AsyncIterator[Wire]:
    wire = Wire(ports)
    wire._server = await asyncio.start_server(wire._connected, "127.0.0.1", 0)
    try:
        yield wire
    finally:
        wire.release()
        wire.cut()
        wire._server.close()


def through(wire: Wire, url: str) -> str:
    """The URL by way of the wire."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{wire.port}"))
