"""The grammar of the Host header: `uri-host [ ":" port ]` of RFC 9110, section 7.2, with the hosts of RFC 3986."""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final

# Checked values that are remembered: clients of a service send only a few.
HOSTS_MAX: Final = 64
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
