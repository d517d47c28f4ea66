"""A key set gives the public keys that can verify signatures, and nothing else in it has an effect."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.access.signing_keys import JWKS_BYTES_MAX, KEYS_MAX, parse_jwks
from service.errors import SigningKeysError
from tests.support.jwt_issuer import issuer_key, number

GOOD = issuer_key()
RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": [*keys, GOOD.jwk()]}).encode()


@pytest.mark.parametrize(
    ("algorithm", "members", "expected"),
    [
        ("RS256", {}, {"RS256"}),
        ("RS256", {"alg": None}, RSA),
        ("PS384", {}, {"PS384"}),
        ("ES256", {"alg": None, "use": None}, {"ES256"}),
        ("ES384", {}, {"ES384"}),
        ("ES512", {"key_ops": ["verify"]}, {"ES512"}),
        ("Ed25519", {"alg": None, "more": {"x": [1]}}, {"Ed25519", "EdDSA"}),
        ("EdDSA", {}, {"EdDSA"}),
    ],
)
def test_each_kind_of_key_is_read(algorithm: str, members: dict[str, Any], expected: set[str]) -> None:
    """A key verifies the algorithms of its kind, or the one that it names."""
    key, good = parse_jwks(document(issuer_key(algorithm, algorithm).jwk(**members)))
    assert (key.id, key.algorithms) == (algorithm, expected)
    assert good.id == GOOD.id


SKIPPED: dict[str, Any] = {
    "symmetric": {"kty": "oct", "k": "c2VjcmV0"},
    "for encryption": GOOD.jwk(use="enc"),
    "for other operations": GOOD.jwk(key_ops=["deriveKey"]),
    "of another algorithm": GOOD.jwk(alg="ES384"),
    "of a symmetric algorithm": issuer_key("rsa", "RS256").jwk(alg="HS256"),
    "of no algorithm": issuer_key("rsa", "RS256").jwk(alg="none"),
    "of an unknown curve": GOOD.jwk(crv="secp256k1"),
    "of another curve than its point": GOOD.jwk(crv="P-384"),
    "off the curve": GOOD.jwk(x="AAAA"),
    "without a coordinate": {name: value for name, value in GOOD.jwk().items() if name != "y"},
    "with its private part": GOOD.jwk(d="AAAA"),
    "of no kind": {"kid": "a"},
    "of an unknown kind": {"kty": "AKP", "pub": "AAAA"},
    "with a number for text": GOOD.jwk(x=1),
    "with a number for its name": GOOD.jwk(kid=1),
    "with characters of no base64url": GOOD.jwk(x="=+/ü"),
    "with base64url of no whole bytes": GOOD.jwk(x="A"),
    "too short": issuer_key("rsa", "RS256").jwk(n=number(2**1024 + 1)),
    "too long": issuer_key("rsa", "RS256").jwk(n=number(2**8200 + 1)),
    "with a huge exponent": issuer_key("rsa", "RS256").jwk(e=number(2**72 + 1)),
    "with an even exponent": issuer_key("rsa", "RS256").jwk(e=number(4)),
    "without a modulus": issuer_key("rsa", "RS256").jwk(n=""),
}


@pytest.mark.parametrize("key", SKIPPED.values(), ids=SKIPPED)
def test_other_keys_are_skipped(key: dict[str, Any]) -> None:
    """A key that cannot verify a signature, or must not, leaves the others usable."""
    assert [one.id for one in parse_jwks(document(key))] == [GOOD.id]
    with pytest.raises(SigningKeysError, match="no public key"):
        parse_jwks(json.dumps({"keys": [key]}).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": null}',
        b'{"keys": [1]}',
        b'{"keys": {}}',
        b"\xff",
        b"[" * 10_000,
        b'{"keys": [' + b"[" * 10_000,
        json.dumps({"keys": [GOOD.jwk()] * (KEYS_MAX + 1)}).encode(),
        document() + b" " * JWKS_BYTES_MAX,
    ],
)
def test_other_documents_are_refused(content: bytes) -> None:
    """What is no key set, or too large a one, raises the declared error."""
    with pytest.raises(SigningKeysError):
        parse_jwks(content)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3)


@settings(deadline=None)
@given(st.data(), st.sampled_from(["ES256", "RS256", "Ed25519"]))
def test_any_key_is_read_or_skipped(data: st.DataObject, algorithm: str) -> None:
    """Whatever the members of a key are, the other keys are found."""
    jwk = issuer_key(algorithm, algorithm).jwk()
    names = st.sampled_from([*jwk, "key_ops", "d", "x5c"])
    changes = data.draw(st.dictionaries(names, VALUES | st.sampled_from(["P-521", "EC", "RSA", "AQAB"]), max_size=4))
    assert parse_jwks(json.dumps({"keys": [{**jwk, **changes}, GOOD.jwk()]}).encode())[-1].id == GOOD.id


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_refused_as_declared(content: bytes) -> None:
    """Bytes that are no key set raise the declared error and no other."""
    with pytest.raises(SigningKeysError):
        parse_jwks(content)
