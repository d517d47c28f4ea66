"""Limit the connections of a worker, in total and for each address."""

from collections import Counter
from typing import Final

from service.serve.client_address import Proxies, client_network
from service.settings import Settings


class Admission:
    """Counts the clients that are connected, also those whose TLS handshake is not complete.

    Args:
        settings: The limits.
        proxies: The proxies, whose many clients share their addresses; they have no limit of their own.
    """

    def __init__(self, settings: Settings, proxies: Proxies) -> None:
        self._settings: Final = settings
        self._proxies: Final = proxies
        self._total = 0
        self._clients: Counter[str] = Counter()

    def enter(self, peer: str | None) -> bool:
        """Count a client that has connected; return whether it may stay.

        Args:
            peer: The address of its connection, if it is known.
        """
        self._total += 1
        name = self._name(peer)
        if name is None:
            return self._total <= self._settings.connections_max
        self._clients[name] += 1
        most = self._settings.connections_per_address_max or self._settings.connections_max
        return self._total <= self._settings.connections_max and self._clients[name] <= most

    def leave(self, peer: str | None) -> None:
        """Count a client that is no longer connected."""
        self._total -= 1
        name = self._name(peer)
        if name is not None:
            self._clients[name] -= 1
            if not self._clients[name]:
                del self._clients[name]

    def _name(self, peer: str | None) -> str | None:
        """Return the name under which a client is counted, or None for one without a limit of its own."""
        if self._settings.connections_per_address_max is None or peer is None or self._proxies.trusts(peer):
            return None
        return client_network(peer)
