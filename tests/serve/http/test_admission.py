"""The limits of connections, in total and for each address."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from service.serve.client_address import Proxies
from service.serve.http.admission import Admission
from service.settings import Settings
from tests.support.certificates import Authority
from tests.support.http_requests import request
from tests.support.running_service import ask, serving
from tests.support.waiting import SECONDS, wait_until


def admission(**settings: object) -> Admission:
    """Return the limits of these settings, behind a proxy at 10.0.0.1."""
    return Admission(Settings.model_validate(settings), Proxies(["10.0.0.1"]))


def test_an_address_has_a_limit_of_its_own() -> None:
    """Other addresses may still connect, and the address itself once a connection has ended."""
    limits = admission(connections_per_address_max=2)
    assert [limits.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert limits.enter("192.0.2.2")
    for _ in range(2):
        limits.leave("192.0.2.1")
    assert limits.enter("192.0.2.1")
    assert not limits.enter("::ffff:192.0.2.1")


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    """A client cannot pass the limit with the many addresses that it has."""
    limits = admission(connections_per_address_max=1)
    assert [limits.enter(f"2001:db8::{number}") for number in range(2)] == [True, False]
    assert limits.enter("2001:db8:0:1::")


def test_proxies_have_no_limit_of_their_own() -> None:
    """Only the limit of all connections holds for them, and for clients whose address is not known."""
    limits = admission(connections_per_address_max=1, connections_max=4)
    assert [limits.enter(peer) for peer in ("10.0.0.1", "10.0.0.1", None, None, "192.0.2.1")] == [True] * 4 + [False]


@contextlib.contextmanager
def stranger(address: tuple[str, int]) -> Iterator[socket.socket]:
    """Connect from another loopback address."""
    with socket.create_connection(address, SECONDS, source_address=("127.0.0.2", 0)) as end:
        yield end


def is_open(end: socket.socket) -> bool:
    """Whether a connection is still open a moment later."""
    end.settimeout(0.2)
    try:
        return bool(end.recv(1))
    except TimeoutError:
        return True
    except ConnectionError:
        return False


def test_the_limit_of_an_address_holds_with_tls_from_the_first_byte(iris_models: Path, tmp_path: Path) -> None:
    """Clients that have not begun their handshake count, and other addresses are answered."""
    authority = Authority(tmp_path)
    context = authority.client()
    with serving(
        iris_models,
        tmp_path,
        client=context,
        SOFTSTEP_TLS_CERTIFICATE=authority.sign("service.pem"),
        SOFTSTEP_CONNECTIONS_PER_ADDRESS_MAX=2,
    ) as service:
        with stranger(service.address) as first, stranger(service.address) as second:
            assert is_open(first)
            assert is_open(second)
            with contextlib.suppress(ConnectionError), stranger(service.address) as third:
                assert not is_open(third)
            with socket.create_connection(service.address, SECONDS) as raw:
                end = context.wrap_socket(raw, server_hostname="127.0.0.1")
                end.sendall(request("GET", "/healthz"))
                assert end.recv(100).startswith(b"HTTP/1.1 200")
                end.close()

        def can_connect() -> bool:
            with contextlib.suppress(ConnectionError, ssl.SSLError), stranger(service.address) as end:
                return is_open(end)
            return False

        wait_until(can_connect)


def test_the_limit_of_an_address_holds_without_tls(iris_models: Path, tmp_path: Path) -> None:
    """A further connection is closed at once."""
    with serving(iris_models, tmp_path, SOFTSTEP_CONNECTIONS_PER_ADDRESS_MAX=1) as service:
        with stranger(service.address) as first:
            assert is_open(first)
            with contextlib.suppress(ConnectionError), stranger(service.address) as second:
                assert not is_open(second)
        assert ask(service, request("GET", "/healthz")).status == 200
