"""The address of a client behind proxies."""

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.serve.client_address import HOPS_MAX, Proxies, client_network

PROXY, INNER, CLIENT = "10.0.0.1", "10.0.0.2", "203.0.113.7"
FOR = Proxies(["10.0.0.0/8", "2001:db8::1"])
FORWARDED = Proxies(["10.0.0.0/8", "2001:db8::1"], "forwarded")
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


def header(*values: str, name: bytes = b"x-forwarded-for") -> list[tuple[bytes, bytes]]:
    """Return a header in one or several lines, among others."""
    return [(b"host", b"softstep"), *((name, value.encode()) for value in values), (b"accept", b"*/*")]


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([], PROXY),
        ([""], PROXY),
        ([CLIENT], CLIENT),
        ([f"198.51.100.9, {CLIENT}"], CLIENT),
        ([f"198.51.100.9, {CLIENT}, {INNER}"], CLIENT),
        (["198.51.100.9", f"{CLIENT},{INNER}"], CLIENT),
        ([CLIENT, INNER], CLIENT),
        ([f"{CLIENT}:4711"], CLIENT),
        (["[2001:db8::2]:4711"], "2001:db8::2"),
        (["2001:db8::2, 2001:db8::1"], "2001:db8::2"),
        (["::ffff:203.0.113.7"], CLIENT),
        ([f"unknown, {INNER}"], INNER),
        ([f"{CLIENT}, 10.0.0.256"], PROXY),
        ([f"{CLIENT}, <script>"], PROXY),
        ([f"{CLIENT}," + f"{INNER}," * HOPS_MAX + INNER], INNER),
    ],
)
def test_the_nearest_untrusted_hop_is_the_client(values: list[str], client: str) -> None:
    """What stands before it may be invented, and a hop that is no address ends the way."""
    assert FOR.client_of(PROXY, header(*values)) == client


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([f"for={CLIENT};proto=https;by=10.0.0.9"], CLIENT),
        ([f'For="{CLIENT}:80", for={INNER}'], CLIENT),
        (['for="[2001:db8::2]:4711"'], "2001:db8::2"),
        ([f"for={CLIENT}", f"for={INNER}"], CLIENT),
        ([f"for=_hidden, for={INNER}"], INNER),
        ([f"proto=https, for={INNER}"], INNER),
        ([f'for="a, for={CLIENT}'], PROXY),
        ([f'for="a\\", for={CLIENT}"'], PROXY),
        ([f"for={CLIENT} for={INNER}"], PROXY),
        ([f"{CLIENT}"], PROXY),
    ],
)
def test_forwarded_is_read_by_its_grammar(values: list[str], client: str) -> None:
    """A header with a quote that does not end says nothing: it could hide what the proxy appended."""
    assert FORWARDED.client_of(PROXY, header(*values, name=b"forwarded")) == client


@given(st.lists(ADDRESSES, max_size=5), ADDRESSES)
def test_an_untrusted_client_is_what_its_connection_says(hops: list[str], peer: str) -> None:
    """Its headers are ignored, and so are everybody's without the setting."""
    assert Proxies().client_of(peer, header(", ".join(hops))) == peer
    if not FOR.trusts(peer):
        assert FOR.client_of(peer, header(", ".join(hops))) == peer


@given(st.binary(max_size=300))
@example(b"\n")
@example(b"for=192.0.2.1\n")
def test_any_header_gives_an_address(value: bytes) -> None:
    """Neither form raises, and the result is an address."""
    for proxies, name in ((FOR, b"x-forwarded-for"), (FORWARDED, b"forwarded")):
        ip_address(proxies.client_of(PROXY, [(name, value)]))


def test_a_header_of_the_other_name_is_ignored() -> None:
    """A proxy that sets one header may pass on what a client wrote to the other."""
    assert FORWARDED.client_of(PROXY, header(CLIENT)) == PROXY
    assert FOR.client_of(PROXY, header(f"for={CLIENT}", name=b"forwarded")) == PROXY


def test_a_head_is_read_as_its_headers_are() -> None:
    """The bytes of a remembered head give the same client."""
    head = f"POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For:  {CLIENT} \r\nX-FORWARDED-FOR: {INNER}\r\n\r\n".encode()
    assert FOR.client_of_head(PROXY, head) == CLIENT
    assert FOR.client_of_head(CLIENT, head) == CLIENT


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_addresses_of_one_client_have_one_network(peer: str, network: str) -> None:
    """A client of IPv6 may use every address of its network."""
    assert client_network(peer) == network
