"""Remembered heads: what a head means that was parsed once, for each kind of connection.

A client that keeps a connection sends the same head again and again; the same bytes then need no parser. They mean the
same on every connection of one kind: those of one port whose clients have the same certificate, or none.
"""

from typing import Final
from weakref import WeakValueDictionary

from service.access.client_certificate import ClientCertificate
from service.serve.http.response_forms import ResponseForm
from service.serve.models.endpoint import Endpoint
from service.serve.responses import RequestHead

# Remembered heads of a worker, all their bytes, and the longest, which has room for a JWT with its groups.
HEADS_MAX: Final = 4096
HEADS_BYTES_MAX: Final = 16 << 20
HEAD_BYTES_MAX: Final = 8192


class CachedHead:
    """A remembered head and what it means.

    Attributes:
        head: The head's bytes, with the empty line that ends it.
        size: The bytes of such a request: the head, and the body length that the head declares.
        endpoint: The kind of request and the model.
        request: Its headers that the response depends on.
        url: The path, for the access log.
        form: The form of its responses.
        table: The table that this head was remembered in.
    """

    __slots__ = ("endpoint", "form", "head", "request", "size", "table", "url")

    def __init__(  # noqa: PLR0917  # a record
        self,
        head: bytes,
        size: int,
        endpoint: Endpoint,
        request: RequestHead,
        url: bytes,
        form: ResponseForm,
        table: "HeadTable",
    ) -> None:
        self.head = head
        self.size = size
        self.endpoint = endpoint
        self.request = request
        self.url = url
        self.form = form
        self.table = table


class HeadTable(dict[bytes, CachedHead]):
    """The remembered heads of one kind of connections, until the models or the keys change.

    Attributes:
        is_current: Whether its heads still mean what they meant.
    """

    __slots__ = ("is_current",)

    def __init__(self) -> None:
        super().__init__()
        self.is_current = True


# The table of a head that was forgotten alone.
FORGOTTEN: Final = HeadTable()
FORGOTTEN.is_current = False


class ConnectionKind:
    """Connections on which the same head has the same meaning.

    Attributes:
        is_public: Whether the calls of feedback and administration are on another port.
        certificate: The verified certificate of the client, or None.
        table: The remembered heads.
    """

    __slots__ = ("__weakref__", "certificate", "is_public", "table")

    def __init__(self, certificate: ClientCertificate | None, *, is_public: bool) -> None:
        self.certificate = certificate
        self.is_public = is_public
        self.table = HeadTable()


class RememberedHeads:
    """The remembered heads of one worker. A kind of connections is forgotten with its last connection."""

    def __init__(self) -> None:
        self._kinds: WeakValueDictionary[tuple[ClientCertificate | None, bool], ConnectionKind] = WeakValueDictionary()
        self._count = 0
        self._bytes = 0

    def kind(self, certificate: ClientCertificate | None = None, *, is_public: bool = False) -> ConnectionKind:
        """Return the kind of connections with these properties."""
        key = certificate, is_public
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = ConnectionKind(certificate, is_public=is_public)
        return kind

    def remember(  # noqa: PLR0917  # the parts of a record
        self,
        kind: ConnectionKind,
        head: bytes,
        size: int,
        endpoint: Endpoint,
        request: RequestHead,
        url: bytes,
        form: ResponseForm,
    ) -> None:
        """Remember what a head means on connections of a kind."""
        table = kind.table
        self._forget(table, head)
        if self._count >= HEADS_MAX or self._bytes > HEADS_BYTES_MAX:
            self.forget()
            table = kind.table
        self._count += 1
        self._bytes += len(head)
        table[head] = CachedHead(head, size, endpoint, request, url, form, table)

    def forget(self) -> None:
        """Forget all heads: the models or the keys have changed, or there are too many."""
        self._count = self._bytes = 0
        for kind in list(self._kinds.values()):
            kind.table.is_current = False
            kind.table = HeadTable()

    def forget_expired(self, now: float) -> None:
        """Forget the heads whose principals have expired, in seconds since 1970."""
        for kind in list(self._kinds.values()):
            for cached in [one for one in kind.table.values() if one.request.principal.expires <= now]:
                self._forget(kind.table, cached.head)

    def _forget(self, table: HeadTable, head: bytes) -> None:
        """Forget a head if it is remembered; connections that hold it no longer use it."""
        cached = table.pop(head, None)
        if cached is not None:
            self._count -= 1
            self._bytes -= len(head)
            cached.table = FORGOTTEN
