"""Which addresses may be connected to. A name is resolved once, every address is judged, and one of them is dialled.

So a name server that changes its mind between the two reaches nothing (DNS rebinding). The ranges are those of the
IANA special-purpose registries (RFC 6890); they stand here because what `ipaddress` calls global has changed between
releases of Python.
"""

import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from agent.fetch.errors import Interrupted, NotFetched

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Ranges = Mapping[ipaddress.IPv4Network | ipaddress.IPv6Network, str]
Address = tuple[socket.AddressFamily, tuple[Any, ...]]
"""A family and what `socket.connect` takes for it; its first member is the address as text."""
Resolve = Callable[[str, int], Sequence[Address]]
"""The addresses of a host name and port; raises OSError."""

LOCAL: Final[Ranges] = {
    ipaddress.ip_network(cidr): what
    for cidr, what in {
        "127.0.0.0/8": "this computer",
        "::1/128": "this computer",
        "10.0.0.0/8": "a private network",
        "172.16.0.0/12": "a private network",
        "192.168.0.0/16": "a private network",
        "fc00::/7": "a private network",
        "fec0::/10": "a private network",
        "64:ff9b:1::/48": "a private network",
        "100.64.0.0/10": "a provider's network",
        "169.254.0.0/16": "link-local, where metadata services are",
        "fe80::/10": "link-local",
    }.items()
}
"""Allowed only with `private_networks`."""
NEVER: Final[Ranges] = {
    ipaddress.ip_network(cidr): what
    for cidr, what in {
        "0.0.0.0/8": "no address of a server",
        "168.63.129.16/32": "a cloud's own service",
        "192.0.0.0/24": "reserved for protocols",
        "192.0.2.0/24": "documentation",
        "192.88.99.0/24": "6to4 relays",
        "198.18.0.0/15": "benchmarks",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
        "2001::/23": "Teredo and other protocols",
        "2001:db8::/32": "documentation",
        "2002::/16": "6to4",
        "3fff::/20": "documentation",
    }.items()
}
GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
"""The only part of IPv6 that is given out (RFC 4291, section 2.4)."""
CARRIES_IPV4: Final = (ipaddress.ip_network("::ffff:0:0/96"), ipaddress.ip_network("64:ff9b::/96"))
"""Mapped (RFC 4291) and NAT64 (RFC 6052): the last 32 bits are the address that is reached."""


def objection(address: str, *, private_networks: bool) -> str:
    """What an address is, if it may not be connected to; empty when it may."""
    ip = _reached(ipaddress.ip_address(address))
    for network, what in NEVER.items():
        if ip in network:
            return what
    for network, what in LOCAL.items():
        if ip in network:
            return "" if private_networks else what
    return "" if ip.version == 4 or ip in GLOBAL_UNICAST else "no global address"


def judged(host: str, port: int, resolve: Resolve, *, private_networks: bool) -> Sequence[Address]:
    """The addresses of `host`, all of them allowed.

    One that is not allowed refuses the host, whatever the others are: which one is dialled is nothing to gamble on.
    Raises `NotFetched`, or `Interrupted` where the name cannot be resolved now.
    """
    try:
        found = resolve(host, port)
    except OSError as error:
        raise Interrupted(f"{host}: its address cannot be found ({error.strerror or error})") from error
    for _, place in found:
        if what := objection(str(place[0]), private_networks=private_networks):
            raise NotFetched(
                f"{host} has the address {place[0]} ({what}), which may not be connected to; only for a private or local"
                " one private_networks = true would allow it"
            )
    return found


def resolved(host: str, port: int) -> Sequence[Address]:
    """Ask the system (getaddrinfo(3)); raises OSError."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, place) for family, _, _, _, place in answers]


def _reached(ip: IP) -> IP:
    if any(ip in network for network in CARRIES_IPV4):
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip
