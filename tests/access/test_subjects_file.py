"""The file of certificate subjects, and the names of certificates."""

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.client_certificate import ClientCertificate, read_certificate
from service.access.scopes import Scope
from service.access.subjects_file import FILE_BYTES_MAX, SubjectRecord, SubjectTable, read_subjects
from service.errors import TlsFileError

PEER = {
    "subject": ((("organizationName", "Example"),), (("commonName", "scoring-1"), ("userId", "7"))),
    "subjectAltName": (("DNS", "a.example"), ("URI", "spiffe://example/a"), ("IP Address", "192.0.2.1")),
    "notAfter": "Nov 29 10:00:00 2026 GMT",
}
NAMES = {
    ("O", "Example"), ("CN", "scoring-1"), ("UID", "7"),
    ("DNS", "a.example"), ("URI", "spiffe://example/a"), ("IP", "192.0.2.1"),
}  # fmt: skip
KEY = b"k" * 32
CERTIFICATE = ClientCertificate(frozenset(NAMES), 1.0)


def record(names: dict[str, str], *scopes: Scope) -> SubjectRecord:
    """Return an entry."""
    return SubjectRecord(certificate=names, scopes=scopes or (Scope.PREDICT,))


def test_a_certificate_has_its_names_and_its_end() -> None:
    """The subject has short names, and other names the type of their kind."""
    certificate = read_certificate(PEER)
    assert certificate is not None
    assert certificate.names == NAMES
    assert certificate.expires == ssl.cert_time_to_seconds(PEER["notAfter"])
    assert read_certificate({}) is read_certificate(None) is None


def test_the_actor_is_a_hash_of_the_names() -> None:
    """A renewed certificate has the same actor; another name or key gives another one."""
    actor = CERTIFICATE.actor(KEY)
    assert actor == CERTIFICATE._replace(expires=2.0).actor(KEY)
    assert actor != CERTIFICATE.actor(bytes(32))
    assert actor != ClientCertificate(frozenset({("CN", "scoring-2")}), 1.0).actor(KEY)
    assert len(actor) == 36
    assert actor.startswith("tls:")
    assert actor.isascii()


@pytest.mark.parametrize(
    ("names", "matches"),
    [
        ({"CN": "scoring-1"}, True),
        ({"CN": "scoring-*", "O": "Example"}, True),
        ({"URI": "spiffe://example/*"}, True),
        ({"CN": "scoring-*", "O": "Other"}, False),
        ({"CN": "SCORING-1"}, False),
        ({"OU": "*"}, False),
        ({"DNS": "scoring-1"}, False),
    ],
)
def test_every_name_of_an_entry_must_match(names: dict[str, str], matches: bool) -> None:  # noqa: FBT001
    """A name of another type does not count."""
    assert record(names).matches(CERTIFICATE) is matches


def test_the_first_matching_entry_counts() -> None:
    """Its scopes are those of the principal, which ends with the certificate."""
    table = SubjectTable([record({"CN": "x"}), record({"CN": "*"}, Scope.ADMIN), record({"CN": "scoring-1"})])
    principal = table.find(CERTIFICATE, KEY)
    assert principal is not None
    assert (principal.actor, principal.scopes, principal.expires) == (CERTIFICATE.actor(KEY), {Scope.ADMIN}, 1.0)
    assert SubjectTable().find(CERTIFICATE, KEY) is None


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_value_never_stands_for_another_name(value: str, organization: str) -> None:
    """Whatever the common name is, it gives no organization."""
    certificate = ClientCertificate(frozenset({("CN", value)}), 1.0)
    assert not record({"O": organization or "*"}).matches(certificate)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ([], "the document"),
        ({"subjects": [{}]}, "subjects.0.certificate"),
        ({"subjects": [{"certificate": {}, "scopes": ["predict"]}]}, "subjects.0.certificate"),
        ({"subjects": [{"certificate": {"CN": "a"}, "scopes": []}]}, "subjects.0.scopes"),
        ({"subjects": [{"certificate": {"CN": "a"}, "scopes": ["all"]}]}, "subjects.0.scopes"),
        ({"subjects": [{"certificate": {"CN": "a"}, "scopes": ["admin"], "model": ["x"]}]}, "subjects.0.model"),
        ({"format": 2}, "format"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(tmp_path: Path, document: Any, place: str) -> None:
    """The message repeats no value."""
    path = tmp_path / "subjects.json"
    path.write_text(json.dumps(document))
    with pytest.raises(TlsFileError, match=f"not valid at {place}$"):
        read_subjects(path)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    """Its size has a limit."""
    path = tmp_path / "subjects.json"
    path.write_bytes(b" " * (FILE_BYTES_MAX + 1))
    with pytest.raises(TlsFileError, match="larger than 4 MiB"):
        read_subjects(path)
