"""A TCP proxy with which a test can hold, silence or cut connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

Direction = Literal["up", "down"]
"""`up` is towards the server."""


class Wire:
    """Forwards each connection to the first of `ports` that accepts it, like a load balancer."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._server: asyncio.Server | None = None
        self._open: dict[Direction, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._lines: set[Line] = set()
        self._triggers: Sequence[bytes] = ()
        self._is_cut = False
        for gate in self._open.values():
            gate.set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def hold(self, direction: Direction) -> None:
        """Holds back all data in that direction until `release`."""
        self._open[direction].clear()

    def hold_after(self, *triggers: bytes) -> None:
        """Holds data towards the client once all `triggers` were sent up, in this order, on any one connection."""
        self._triggers = triggers

    def _observe_up(self, line: "Line", content: bytes) -> None:
        while line.seen < len(self._triggers) and self._triggers[line.seen] in content:
            line.seen += 1
        if self._triggers and line.seen == len(self._triggers):
            self.hold("down")

    def release(self) -> None:
        for gate in self._open.values():
            gate.set()

    def forget(self) -> None:
        """Like a firewall that loses its table: open connections pass no data and get no error; new ones work."""
        for line in self._lines:
            line.silenced = True

    def cut(self) -> None:
        """Aborts all connections and accepts no new ones until `restore`."""
        self._is_cut = True
        for line in list(self._lines):
            line.end()

    def restore(self) -> None:
        self._is_cut = False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = None if self._is_cut else await self._connect()
            if server is None:
                return
            line = Line([reader, server[0]], [server[1], writer])
            self._lines.add(line)
            try:
                await line.carry(self._open, self._observe_up)
            finally:
                self._lines.discard(line)
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in self._ports:
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None


class Line:
    """One connection, with both directions."""

    def __init__(self, readers: Sequence[asyncio.StreamReader], writers: Sequence[asyncio.StreamWriter]) -> None:
        self.silenced = False
        self.seen = 0
        self._readers = readers
        self._writers = writers

    def end(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def carry(self, gates: dict[Direction, asyncio.Event], observe_up: Callable[["Line", bytes], None]) -> None:
        observers = [observe_up, lambda *_: None]
        directions = zip(self._readers, self._writers, gates.values(), observers, strict=True)
        tasks = [asyncio.create_task(self._forward(*direction)) for direction in directions]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.end()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        gate: asyncio.Event,
        observe: Callable[["Line", bytes], None],
    ) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(65536):
                observe(self, content)
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
    """The URL with the address of the wire."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{wire.port}"))
