"""Where webhooks may be posted: public addresses, over https.

A URL that a person entered must not reach into our own network (OWASP: "server-side request forgery"). The addresses of
a host are checked whenever a connection is opened, and the connection goes to the address that was checked, so a name
that resolves differently the second time ("DNS rebinding") does not help. TLS still verifies the name.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

import aiodns
import httpcore
import httpx

HostAndPort = tuple[str, int]

_VALIDATE_TIMEOUT: Final = 3.0
"""Seconds that a registration waits for name resolution; after that the check is left to the delivery."""
_RESOLVE_TIMEOUT: Final = 5.0
"""Seconds that a name has to resolve, whatever its name servers do."""
_CONNECT_TIMEOUT: Final = 4.0
_HOST_NAME: Final = re.compile(r"[a-z0-9._-]+")
"""Matches names of any length, and IPv4 addresses in any spelling; the resolver refuses everything else."""
_NOT_PUBLIC: Final = "the host is at an address that is not public"

_NOT_PUBLIC_IPV4: Final = [
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4"),
    )
]
_PUBLIC_IPV6: Final = ip_network("2000::/3")
_NOT_PUBLIC_IPV6: Final = [
    ip_network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3ffe::/16", "3fff::/20")
]
"""From IANA's special-purpose registries (RFC 6890). In IPv6 only global unicast is public, less the ranges that embed
IPv4 addresses (Teredo, 6to4; mapped and translated ones are outside it). Python's `is_global` varies by version."""


class BadDestination(Exception):
    """Its text gives the reason, without the addresses that a name resolves to."""


class Destinations:
    """Checks and resolves the hosts of webhooks.

    Hosts in `allow` may be reached over http and at any address. `resolver` replaces that of the system's name servers.
    It is asynchronous: a name server that does not answer holds no thread, and so delays no other name.
    """

    def __init__(self, allow: Collection[HostAndPort], *, resolver: aiodns.DNSResolver | None = None) -> None:
        self._allow = frozenset(allow)
        self._resolver = resolver

    def parse(self, text: str) -> httpx.URL:
        """Normalizes the URL. Raises `BadDestination`."""
        try:
            url = httpx.URL(text)
            # Decoded when they are read: an A-label that IDNA 2008 does not allow raises here (encode/httpx#3710).
            host, raw_host = url.host, url.raw_host.decode("ascii")
        except (httpx.InvalidURL, ValueError):
            raise BadDestination("not a URL") from None
        if not host or url.scheme not in {"https", "http"}:
            raise BadDestination("must be an absolute https URL")
        if not _HOST_NAME.fullmatch(raw_host) and not _is_ipv6(raw_host):
            raise BadDestination("the host must be a name or an address")
        if url.userinfo or url.fragment:
            raise BadDestination("must have neither user nor fragment")
        if not 0 < port_of(url) < 65536:
            raise BadDestination("invalid port")
        if url.scheme == "http" and (host, port_of(url)) not in self._allow:
            raise BadDestination("must be an https URL")
        return url

    async def validate(self, text: str) -> httpx.URL:
        """Checks the URL of a new webhook. The host need not resolve yet. Raises `BadDestination`."""
        url = self.parse(text)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_VALIDATE_TIMEOUT):
                await self.addresses(url.raw_host.decode("ascii"), port_of(url))
        return url

    async def addresses(self, host: str, port: int) -> list[str]:
        """Resolves the host. Raises `BadDestination` if any of its addresses is not public, or `OSError`."""
        allowed = (host.lower(), port) in self._allow
        if not allowed and f".{host.lower().rstrip('.')}".endswith(".localhost"):  # RFC 6761 §6.3
            raise BadDestination(_NOT_PUBLIC)
        addresses = list(dict.fromkeys(await self._look_up(host)))
        if not allowed and not all(map(is_public, addresses)):
            raise BadDestination(_NOT_PUBLIC)
        return addresses

    async def _look_up(self, host: str) -> list[str]:
        """Raises `OSError`."""
        if (literal := _literal(host)) is not None:
            return [literal]
        if f".{host.lower().rstrip('.')}".endswith(".invalid"):  # RFC 6761 §6.4
            raise OSError("not a name")
        if self._resolver is None:
            # The first try is short, since c-ares adapts it to quick answers before; each further one is twice as long.
            self._resolver = aiodns.DNSResolver(timeout=1.0, tries=5)
        try:
            async with asyncio.timeout(_RESOLVE_TIMEOUT):
                found = await self._resolver.getaddrinfo(host, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            raise OSError(str(error)) from None
        return [_text_of(node.addr[0]) for node in found.nodes]

    async def close(self) -> None:
        if self._resolver is not None:
            await self._resolver.close()


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Connects only to addresses that `Destinations` accepts. Raises `BadDestination` or the errors of httpcore."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - httpcore's interface; the caller limits the total
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._destinations.addresses(host, port)
        except OSError:
            raise httpcore.ConnectError("the host does not resolve") from None
        failure: Exception = httpcore.ConnectError("the host has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(
                    address, port, timeout=_CONNECT_TIMEOUT, local_address=local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


def port_of(url: httpx.URL) -> int:
    return url.port if url.port is not None else {"https": 443, "http": 80}[url.scheme]


def is_public(address: str) -> bool:
    """Whether the address is a unicast address on the public internet."""
    match ip_address(address):
        case IPv4Address() as ipv4:
            return not any(ipv4 in network for network in _NOT_PUBLIC_IPV4)
        case IPv6Address() as ipv6:
            return ipv6 in _PUBLIC_IPV6 and not any(ipv6 in network for network in _NOT_PUBLIC_IPV6)


def _is_ipv6(host: str) -> bool:
    """Without a zone (RFC 6874), which only link-local addresses have."""
    try:
        return IPv6Address(host).scope_id is None
    except ValueError:
        return False


def _literal(host: str) -> str | None:
    """The address that the host is, if it is one, in any spelling that the system's resolver takes for an address."""
    if _is_ipv6(host):
        return host
    with contextlib.suppress(OSError):
        return socket.inet_ntoa(socket.inet_aton(host))
    return None


def _text_of(address: str | bytes) -> str:
    return address.decode("ascii") if isinstance(address, bytes) else address
