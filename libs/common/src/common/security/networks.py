"""The network of a client's address: what limits are counted for, since one client can use many addresses."""

import ipaddress
from typing import Final

UNKNOWN_NETWORK: Final = "unknown"


def network_of(address: str) -> str:
    """One IPv4 address (/32) or an IPv6 /64. A network is returned as it is.

    Text that is no address counts as one network of its own: a request must not fail because its origin is unknown.
    """
    try:
        interface = ipaddress.ip_interface(address)
    except ValueError:
        return UNKNOWN_NETWORK
    if isinstance(interface, ipaddress.IPv4Interface):
        return f"{interface.ip}/32"
    if interface.ip.ipv4_mapped is not None:
        return f"{interface.ip.ipv4_mapped}/32"
    return str(ipaddress.IPv6Network((int(interface.ip), 64), strict=False))


def site_of(network: str) -> str:
    """The /48 around an IPv6 network, because a customer of a provider may own one. Any other network is its own."""
    try:
        return str(ipaddress.IPv6Network(network).supernet(new_prefix=48))
    except ValueError:
        return network
