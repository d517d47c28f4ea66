"""The listening socket: addresses, and the end without a lost connection."""

import socket
import sys

import pytest

from service.process.listener import ignore_new_clients, listen


def test_listening_accepts_ipv6_addresses() -> None:
    """An address with a colon is an IPv6 address."""
    with listen("::1", 0) as listener:
        assert listener.getsockname()[0] == "::1"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has socket filters")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_new_clients_are_ignored_and_queued_ones_are_accepted(host: str) -> None:
    """A client that connected before is accepted and its bytes arrive; a later one waits until the socket closes."""
    with listen(host, 0) as listener:
        address = listener.getsockname()[:2]
        with socket.create_connection(address, 5) as early:
            ignore_new_clients(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, 0.2)
            early.sendall(b"early")
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(5)
                assert accepted.recv(16) == b"early"
                accepted.sendall(b"answer")
                assert early.recv(16) == b"answer"
            with pytest.raises(BlockingIOError):
                listener.accept()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)
