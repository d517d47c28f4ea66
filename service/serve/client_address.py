"""The address of a client: that of its connection, or what a trusted proxy in between says.

A proxy appends the address of its own client to a header. So the header is read from its end, for as long as the hops
are trusted; what stands before the first other hop may be invented. A header that is not valid says nothing.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address

FORWARDED: Final = b"forwarded"
# Hops that are looked at, from the nearest one on; longer ways do not occur.
HOPS_MAX: Final = 32
# Addresses whose trust is remembered; a service has a few proxies.
REMEMBERED_MAX: Final = 1024
# An address with or without a port: 192.0.2.1:80, [2001:db8::1]:80, 2001:db8::1.
NODE: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9.]+)(?::[0-9]+)?|([0-9A-Fa-f:.]+)")
TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # the grammar's name for it
PAIR: Final = rf'({TOKEN})=({TOKEN}|"(?:[^"\\]|\\.)*")'
PAIRS: Final = re.compile(PAIR)
# One element of Forwarded and the comma after it (RFC 7239, section 4). White space is matched once, not in all parts.
ELEMENT: Final = re.compile(rf"[ \t]*+({PAIR}(?:;{PAIR})*)?[ \t]*+(?:,|\Z)")
# The addresses of one client of IPv6: it usually has a network of this size to itself.
CLIENT_PREFIX_6: Final = 64


class Proxies:
    """The proxies whose headers are trusted.

    Args:
        networks: Their networks and addresses.
        header: The name of the header in which they say whom they serve, in lower case.
    """

    def __init__(self, networks: Sequence[str] = (), header: str = "x-forwarded-for") -> None:
        self._networks: Final = [ip_network(network) for network in networks]
        self._header: Final = header.encode()
        self._trusted: dict[str, bool] = {}

    def trusts(self, peer: str) -> bool:
        """Whether an address is that of a trusted proxy."""
        if not self._networks:
            return False
        known = self._trusted.get(peer)
        if known is None:
            address = parse_address(peer)
            known = address is not None and any(address in network for network in self._networks)
            if len(self._trusted) >= REMEMBERED_MAX:
                self._trusted.clear()
            self._trusted[peer] = known
        return known

    def client_of(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the address of the client of a request.

        Args:
            peer: The address of the connection.
            headers: The headers of the request, with names in lower case.
        """
        if not self.trusts(peer):
            return peer
        text = b",".join(value for name, value in headers if name == self._header).decode("latin-1")
        client = peer
        for hop in _hops(text) if self._header == FORWARDED else reversed(text.split(",")[-HOPS_MAX:]):
            address = _address_of(hop)
            if address is None:
                break
            client = str(address)
            if not self.trusts(client):
                break
        return client

    def client_of_head(self, peer: str, head: bytes) -> str:
        """Return the address of the client of a request, given the bytes of its valid head."""
        if not self.trusts(peer):
            return peer
        lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
        return self.client_of(peer, [(name.lower(), value.strip()) for name, _, value in lines])


def parse_address(text: str) -> Address | None:
    """Return an address without its zone, an IPv4 address that is mapped to IPv6 as itself; None if it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def client_network(peer: str) -> str:
    """Return what the addresses of one client have in common: an address of IPv4, a network of IPv6."""
    address = parse_address(peer)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, CLIENT_PREFIX_6), strict=False))
    return str(address)


def _address_of(hop: str) -> Address | None:
    """Return the address of a hop, which may have a port; None if it hides it."""
    match = NODE.fullmatch(hop.strip(" \t"))
    return None if match is None else parse_address(match[1] or match[2] or match[3])


def _hops(text: str) -> list[str]:
    """Return the values of `for` in Forwarded, the nearest first; none if the header is not valid."""
    hops, place = [], 0
    while place < len(text):
        element = ELEMENT.match(text, place)
        if element is None:
            return []
        place = element.end()
        if element[1]:
            pairs = {name.lower(): value for name, value in PAIRS.findall(element[1])}
            hops.append(re.sub(r"\\(.)", r"\1", pairs.get("for", "").strip('"')))
    return hops[: -HOPS_MAX - 1 : -1]
