"""The Host header: its grammar, `uri-host [ ":" port ]` of RFC 9110, section 7.2, and which hosts are loopback.

Resolvers give no other address than loopback to `localhost` and the names below it (RFC 6761, section 6.3).
"""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

# Checked values that are remembered: clients of a service send only a few.
HOSTS_MAX: Final = 64
LOOPBACK_6: Final = IPv6Address("::1")
# A name or IPv4 address, which may be empty; or an address in brackets, of IPv6 or of a later version.
HOST: Final = re.compile(
    rb"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*|\[(?:([0-9A-Fa-f:.]+)|[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\])(?::[0-9]*)?"
)


@lru_cache(HOSTS_MAX)
def is_host(value: bytes) -> bool:
    """Return whether a value is valid in a Host header."""
    match = HOST.fullmatch(value)
    if match is None:
        return False
    if match[1] is None:
        return True
    try:
        IPv6Address(match[1].decode())
    except AddressValueError:
        return False
    return True


@lru_cache(HOSTS_MAX)
def is_loopback_host(value: bytes) -> bool:
    """Return whether a valid value names this machine: localhost, a name below it, 127.0.0.0/8 or [::1]."""
    host = value.decode("ascii").lower()
    if host.startswith("["):
        address = host[1 : host.index("]")]
        return not address.startswith("v") and IPv6Address(address) == LOOPBACK_6
    name = host.partition(":")[0]
    if name.removesuffix(".").rpartition(".")[2] == "localhost":
        return True
    try:
        return IPv4Address(name).is_loopback
    except AddressValueError:
        return False
