"""The load: prepared requests over a few connections, each sent as soon as the previous response has arrived.

A usual client costs more than the server that it should measure. This one understands only HTTP/1.1 responses with a
`Content-Length`, and costs about a tenth of what a small request costs the server.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import cast
from urllib.parse import urlsplit

from bench.table import percentile


@dataclass
class Load:
    """The result: responses per second, their times in ms, and the client's share of one core."""

    rate: float
    latencies: list[float] = field(repr=False)
    share: float
    failed: int

    @property
    def p50(self) -> float:
        return percentile(self.latencies, 50)

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 99)


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], until: float, latencies: list[float]) -> None:
        self._requests = requests
        self._until = until
        self._latencies = latencies
        self._buffer = b""
        self._sent = 0.0
        self.failed = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class is no subclass of asyncio's
        self._send()

    def _send(self) -> None:
        self._sent = perf_counter()
        one = next(self._requests, None) if self._sent < self._until else None
        if one is None:
            self._transport.close()
        else:
            self._transport.write(one)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        head = buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = buffer.find(b"content-length: ", 0, head) + 16
        if len(buffer) < head + 4 + int(buffer[at : buffer.find(b"\r", at)]):
            return
        self._latencies.append((perf_counter() - self._sent) * 1000)
        self.failed += buffer[9:10] != b"2"
        self._buffer = b""
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error) if error is not None else self.done.set_result(None)


async def saturate(url: str, requests: Sequence[Iterator[bytes]], seconds: float) -> Load:
    """Uses one connection per iterator, until it ends or time is up. Raises `RuntimeError` if a response is not 2xx."""
    server = urlsplit(url)
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    cpu, began = process_time(), perf_counter()
    connections = [_Connection(one, began + seconds, latencies) for one in requests]
    for connection in connections:
        await loop.create_connection(lambda c=connection: c, server.hostname or "", server.port or 80)  # type: ignore[misc]
    await asyncio.gather(*(connection.done for connection in connections))
    took = perf_counter() - began
    failed = sum(connection.failed for connection in connections)
    if failed or not latencies:
        raise RuntimeError(f"{failed} of {len(latencies)} responses were not 2xx")
    return Load(len(latencies) / took, latencies, (process_time() - cpu) / took, failed)


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a request. `_` in a header's name stands for `-`."""
    lines = [f"{method} {path} HTTP/1.1", "host: bench"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
