"""A name server on this machine, for the resolver that deliveries use."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import cast

import aiodns

A, AAAA = 1, 28
NO_SUCH_NAME = 3


class NameServer(asyncio.DatagramProtocol):
    """Answers with the addresses in `names`: a list of answers each, of which the last is repeated.

    It does not answer questions about names that end in `.slow.example`.
    """

    def __init__(self, names: dict[str, list[list[str]]]) -> None:
        self._names = names
        self._transport: asyncio.DatagramTransport | None = None
        self.lookups = 0
        self.unanswered: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, kind, question = _question(data)
        if name.endswith(".slow.example"):
            self.unanswered.append(name)
        elif self._transport is not None:
            self._transport.sendto(_answer(data, question, self._found(name, kind), known=name in self._names), addr)

    def _found(self, name: str, kind: int) -> list[bytes]:
        answers = self._names.get(name, [[]])
        found = [ip_address(address).packed for address in answers[0]]
        if kind == A and name in self._names:  # of a look-up the only question that counts
            self.lookups += 1
            if len(answers) > 1:
                del answers[0]
        return [address for address in found if len(address) == (4 if kind == A else 16)]


def _question(data: bytes) -> tuple[str, int, bytes]:
    labels, at = [], 12
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode())
        at += 1 + length
    [kind] = struct.unpack("!H", data[at + 1 : at + 3])
    return ".".join(labels).lower(), kind, data[12 : at + 5]


def _answer(data: bytes, question: bytes, found: list[bytes], *, known: bool) -> bytes:
    """RFC 1035 §4.1."""
    flags = 0x8180 | (0 if known else NO_SUCH_NAME)
    head = data[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
    records = (
        struct.pack("!HHHIH", 0xC00C, A if len(address) == 4 else AAAA, 1, 0, len(address)) + address
        for address in found
    )
    return head + question + b"".join(records)


@contextlib.asynccontextmanager
async def naming(**names: list[list[str]]) -> AsyncIterator[tuple[NameServer, aiodns.DNSResolver]]:
    """A name server and its resolver. The keyword `hooks` names the host `hooks.example`."""
    server = NameServer({f"{name}.example": answers for name, answers in names.items()})
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    resolver = aiodns.DNSResolver(
        ["127.0.0.1"], udp_port=port, tcp_port=port, timeout=2.5, tries=2, domains=[], lookups="b"
    )
    yield server, resolver
    await resolver.close()
    transport.close()
