"""The parsers of credentials, and of the files that say which of them are valid."""

import functools
import json
import tempfile
import time
from binascii import crc32
from pathlib import Path
from typing import Any, Final

from service.access import api_key
from service.access.actor_names import actor_key_of
from service.access.api_key import digest_of, make_key
from service.access.jwks_source import JwksSource
from service.access.jwt_verifier import JwtRules, JwtVerifier
from service.access.key_file import KeyRecord, KeysDocument, KeyTable, SecretRecord, read_keys, utc_now
from service.access.scopes import Scope
from service.access.signing_keys import parse_jwks
from service.errors import ApiKeysError, KeyInvalidError, SigningKeysError
from tests.fuzz.fuzzer import Parser
from tests.support.jwt_issuer import AUDIENCE, ISSUER, base64url, issuer_key, key_set

KEY: Final = make_key()
RECORD: Final = KeyRecord(
    id=KEY.id,
    name="fuzz",
    created=utc_now(),
    scopes=(Scope.PREDICT,),
    models=("iris", "fraud-*"),
    secrets=(SecretRecord(sha256=digest_of(KEY.text.encode()).hex(), created=utc_now()),),
)
KEYS: Final = KeyTable([RECORD])

ISSUER_KEY: Final = issuer_key("fuzz", "ES256")
OTHER_KEY: Final = issuer_key("other", "Ed25519")
RULES: Final = JwtRules(ISSUER, AUDIENCE, frozenset(("ES256", "EdDSA", "Ed25519")), "scope", "softstep:", "models")
TOKEN: Final = ISSUER_KEY.token(scope="softstep:predict", models=["iris"])
CLAIMS: Final = {
    "iss": ISSUER,
    "aud": [AUDIENCE],
    "sub": "alice",
    "exp": 4e9,
    "nbf": 0,
    "iat": 1,
    "scope": "a",
    "models": "b",
}
HEADER: Final = {"alg": "ES256", "kid": "fuzz", "typ": "at+jwt"}
TOKENS: Final = (
    TOKEN.encode(),
    OTHER_KEY.token().encode(),
    json.dumps({"header": HEADER, "payload": CLAIMS}).encode(),
    json.dumps(
        {"header": {**HEADER, "crit": ["b64"], "b64": False, "jwk": {"kty": "oct"}}, "payload": CLAIMS}
    ).encode(),
)


def find_key(data: bytes) -> object:
    """Look a key up, as it is and with a right checksum; only the one in the table is found."""
    body = data[: -api_key.CHECKSUM_SIZE]
    # Only keys with a right checksum are looked up, and no other code makes one.
    right = body + api_key._base62(crc32(body), api_key.CHECKSUM_SIZE).encode()
    for text in (data, right):
        principal = KEYS.find(text, 0.0)
        assert (principal is not None) == (text == KEY.text.encode()), "a changed key was accepted"
    return api_key.key_id_of(data) is None, api_key.key_id_of(right) is None


@functools.cache
def scratch_file() -> Path:
    """Return a path for files that are parsed from disk."""
    return Path(tempfile.mkdtemp(prefix="fuzz-")) / "keys.json"


def parse_keys_file(data: bytes) -> object:
    """Parse a file of keys."""
    scratch_file().write_bytes(data)
    return KeyTable(read_keys(scratch_file()).keys)


@functools.cache
def verifier() -> JwtVerifier:
    """Return the verifier of JWTs that two keys may have signed."""
    source = JwksSource(lambda: key_set(ISSUER_KEY, OTHER_KEY), 0, 1)
    assert source.update()
    return JwtVerifier(RULES, source, actor_key_of(bytes(32)))


def verify_token(data: bytes) -> object:
    """Verify a JWT, given as text, or as its header and payload, which are signed here."""
    try:
        parts: Any = json.loads(data)
        head, payload = (json.dumps(parts[name]).encode() for name in ("header", "payload"))
    except (ValueError, LookupError, TypeError, RecursionError):
        principal = verifier().verify(data, time.time())
        assert data in TOKENS, "a changed token was accepted"
    else:
        text = f"{base64url(head)}.{base64url(payload)}"
        signed = f"{text}.{base64url(ISSUER_KEY.signature(text.encode()))}"
        principal = verifier().verify(signed.encode(), time.time())
    return len(principal.scopes), principal.models is None


IDENTITY_PARSERS: Final[dict[str, Parser]] = {
    "API keys": Parser((KEY.text.encode(), make_key().text.encode()), find_key, ()),
    "the file of API keys": Parser(
        (KeysDocument(keys=(RECORD,)).model_dump_json().encode(),), parse_keys_file, (ApiKeysError,)
    ),
    "JWTs": Parser(TOKENS, verify_token, (KeyInvalidError,)),
    "key sets of issuers": Parser(
        (key_set(ISSUER_KEY, OTHER_KEY), key_set(issuer_key("r", "RS256"))), parse_jwks, (SigningKeysError,)
    ),
}
