"""An HTTP server that receives webhooks."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from standardwebhooks.webhooks import Webhook

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass(frozen=True)
class Request:
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    def verified(self, secret: str) -> Any:
        """The event, verified with the library of the standard, as receivers do. Raises if the signature is wrong."""
        return Webhook(secret).verify(self.body, self.headers)


class Receiver:
    """Stores the requests it receives and gives scripted responses. It implements only the HTTP that this needs."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.requests: list[Request] = []
        self.connections = self.answered = 0
        self.answers: list[bytes] = []
        """The next responses, as raw bytes; after them those of `answers_at`, or `OK`."""
        self.answers_at: dict[str, bytes] = {}
        """The responses to requests of a target."""
        self.answers_now = asyncio.Event()
        self.answers_now.set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/hook?source=waybill"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Ends like a server that dies: drops its connections and accepts no new ones."""
        if self._server is not None:
            self._server.close()
            for writer in self._open:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").splitlines()
            fields = (line.split(": ", 1) for line in head[1:] if line)
            headers = {name.lower(): value for name, value in fields}
            body = await reader.readexactly(int(headers["content-length"]))
            target = head[0].split(" ")[1]
            self.requests.append(Request(target, headers, body))
            await self.answers_now.wait()
            writer.write(self.answers.pop(0) if self.answers else self.answers_at.get(target, OK))
            await writer.drain()
            self.answered += 1
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()
        self._open.discard(writer)


@contextlib.asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(tls)
    await receiver.open()
    yield receiver
    receiver.answers_now.set()
    await receiver.close()


def answer(status: int, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Said", "Content-Length: 0", *fields, "", ""]).encode()
