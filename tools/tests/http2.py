"""An HTTP/2 client (RFC 9113) that begins requests and ends none, to test how much of them the gateway keeps."""

import asyncio
import contextlib
import struct
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Final

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_HEADERS = 1, 4
_MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW = 3, 4
_FRAME: Final = 16_384


class Http2Connection:
    """`settings` are those of the server, `refused` the number of streams that it reset."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._window = 65_535
        self._windows: dict[int, int] = defaultdict(int)
        self._changed = asyncio.Event()
        self._reset: set[int] = set()
        self.settings: dict[int, int] = {}
        self.ended = False

    @property
    def refused(self) -> int:
        return len(self._reset)

    async def start(self) -> None:
        self._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._send(_SETTINGS, 0, 0, b"")
        while not self.settings:
            await self._wait()

    async def open_bodies(self, count: int, path: str, size: int) -> None:
        """Begins `count` requests with bodies of `size` bytes at once, and ends none."""
        streams = range(1, 2 * count, 2)
        for stream in streams:
            # HPACK (RFC 7541): POST and http from the static table, the rest as literals.
            block = b"\x83\x86" + _literal(4, path) + _literal(1, "gateway") + _literal(28, str(size + 1))
            self._send(_HEADERS, _END_HEADERS, stream, block)
        await asyncio.gather(*(self._fill(stream, size) for stream in streams))

    async def _fill(self, stream: int, left: int) -> None:
        while left and not self.ended and stream not in self._reset:
            sent = min(left, _FRAME, self._window, self._windows[stream] + self.settings.get(_INITIAL_WINDOW, 65_535))
            if sent <= 0:
                await self._wait()
                continue
            self._window -= sent
            self._windows[stream] -= sent
            left -= sent
            self._send(_DATA, 0, stream, b"x" * sent)
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()

    async def _wait(self) -> None:
        self._changed.clear()
        async with asyncio.timeout(10):
            await self._changed.wait()

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self._writer.write(
            struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload
        )

    async def read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
                self._received(head[3], head[4], int.from_bytes(head[5:]), payload)
                self._changed.set()
        self.ended = True
        self._changed.set()

    def _received(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self.settings |= dict(struct.iter_unpack(">HI", payload))
            self._send(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._send(_PING, _ACK, 0, payload)
        elif kind == _WINDOW and stream:
            self._windows[stream] += int.from_bytes(payload)
        elif kind == _WINDOW:
            self._window += int.from_bytes(payload)
        elif kind == _RESET:
            self._reset.add(stream)
        elif kind == _GO_AWAY:
            self.ended = True


def _literal(name: int, value: str) -> bytes:
    """A field with a name of the static table, neither indexed nor Huffman-coded (RFC 7541 §6.2.2)."""
    index = bytes([name]) if name < 15 else bytes([15, name - 15])
    return index + bytes([len(value)]) + value.encode()


@contextlib.asynccontextmanager
async def http2_connection(host: str, port: int) -> AsyncIterator[Http2Connection]:
    reader, writer = await asyncio.open_connection(host, port)
    connection = Http2Connection(reader, writer)
    reading = asyncio.create_task(connection.read())
    try:
        await connection.start()
        yield connection
    finally:
        writer.transport.abort()
        await reading
