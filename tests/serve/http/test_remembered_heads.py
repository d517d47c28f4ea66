"""Remembered heads: each kind of connections has its own, and all are forgotten together."""

import gc
from typing import Any, cast

import pytest

from service.access.client_certificate import ClientCertificate
from service.access.principal import ANYONE
from service.serve.http import remembered_heads as module
from service.serve.http.remembered_heads import HEADS_MAX, ConnectionKind, RememberedHeads
from service.serve.responses import RequestHead

ANY: Any = cast("Any", None)
ONE, OTHER = (ClientCertificate(frozenset({("CN", name)}), 0.0) for name in ("one", "other"))


def remember(heads: RememberedHeads, kind: ConnectionKind, head: bytes = b"head") -> None:
    """Remember a head that means nothing."""
    heads.remember(kind, head, 1, ANY, ANY, b"", ANY)


def test_kinds_differ_by_certificate_and_port() -> None:
    """What one kind remembers no other one knows; equal properties are one kind."""
    heads = RememberedHeads()
    kinds = [heads.kind(one, is_public=public) for one in (None, ONE, OTHER) for public in (False, True)]
    for kind in kinds:
        remember(heads, kind)
        assert [b"head" in other.table for other in kinds].count(True) == kinds.index(kind) + 1
    assert heads.kind(ClientCertificate(frozenset({("CN", "one")}), 0.0)) is kinds[2]


def test_all_heads_are_forgotten_together() -> None:
    """A connection that kept a head sees that its table is no longer current."""
    heads = RememberedHeads()
    kinds = heads.kind(), heads.kind(ONE)
    for kind in kinds:
        remember(heads, kind)
    kept = [kind.table[b"head"] for kind in kinds]
    assert all(head.table.is_current for head in kept)
    heads.forget()
    assert not any(head.table.is_current for head in kept)
    assert not any(kind.table for kind in kinds)


def test_the_limit_counts_the_heads_of_all_kinds() -> None:
    """However many certificates there are, a worker remembers no more heads."""
    heads = RememberedHeads()
    kinds = [heads.kind(), heads.kind(ONE)]
    for number in range(HEADS_MAX + 1):
        remember(heads, kinds[number % 2], b"%d" % number)
    assert sum(len(kind.table) for kind in kinds) == 1


def test_a_kind_is_forgotten_with_its_last_connection() -> None:
    """Clients that come with ever new certificates leave nothing."""
    heads = RememberedHeads()
    remember(heads, heads.kind(ONE))
    gc.collect()
    assert not heads.kind(ONE).table


def test_heads_of_expired_principals_are_forgotten_alone() -> None:
    """A connection that kept such a head does not use it, and the other heads stay."""
    heads = RememberedHeads()
    kind = heads.kind(ONE)
    for head, expires in ((b"early", 1.0), (b"late", 3.0)):
        request = RequestHead(principal=ANYONE._replace(expires=expires))
        heads.remember(kind, head, 1, ANY, request, b"", ANY)
    kept = kind.table[b"early"]
    heads.forget_expired(2.0)
    assert list(kind.table) == [b"late"]
    assert not kept.table.is_current


def test_a_head_that_is_remembered_again_replaces_the_earlier_one() -> None:
    """A connection that kept the earlier one does not use it, so that it cannot outlive its principal."""
    heads = RememberedHeads()
    kind = heads.kind(ONE)
    remember(heads, kind)
    (earlier,) = kind.table.values()
    remember(heads, kind)
    (later,) = kind.table.values()
    assert (earlier.table.is_current, later.table.is_current) == (False, True)


def test_the_bytes_of_heads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the heads are, a worker remembers no more bytes than the limit and one head."""
    monkeypatch.setattr(module, "HEADS_BYTES_MAX", 500)
    heads = RememberedHeads()
    kind = heads.kind(ONE)
    for number in range(50):
        heads.remember(kind, b"%03d" % number * 30, 1, ANY, RequestHead(), b"", ANY)
        assert sum(map(len, kind.table)) <= 500 + 90
