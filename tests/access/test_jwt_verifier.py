"""A JWT is accepted if it is signed by the issuer, for this service, and now; any other text is refused."""

import json
import time
from base64 import urlsafe_b64decode
from contextlib import suppress
from hashlib import sha256
from hmac import digest
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from service.access.actor_names import actor_key_of
from service.access.jwks_source import JwksSource
from service.access.jwt_verifier import JWT_BYTES_MAX, LEEWAY_SECONDS, JwtRules, JwtVerifier, make_jwt_verifier
from service.access.principal import Principal
from service.access.scopes import ALL_SCOPES, Scope
from service.errors import IssuerUnavailableError, KeyInvalidError, SigningKeysError
from service.setting_types import ALGORITHMS
from service.settings import Settings
from tests.support.jwt_issuer import AUDIENCE, ISSUER, LIFETIME, base64url, issuer_key, key_set

KEYS = [issuer_key(algorithm, algorithm) for algorithm in ALGORITHMS]
KEY, OTHER = issuer_key("ES256", "ES256"), issuer_key("other", "ES256")
RSA_KEY = issuer_key("RS256", "RS256")
RULES = JwtRules(ISSUER, AUDIENCE, frozenset(ALGORITHMS), "scope", "softstep:", None)


def source_of(content: bytes) -> JwksSource:
    source = JwksSource(lambda: content, 0, 1)
    source.update()
    return source


def verifier(rules: JwtRules = RULES, content: bytes = key_set(*KEYS)) -> JwtVerifier:
    return JwtVerifier(rules, source_of(content), actor_key_of(bytes(32)))


def verify(token: str, **rules: Any) -> Principal:
    return verifier(RULES._replace(**rules)).verify(token.encode(), time.time())


def refuse(token: str | bytes, words: str, **rules: Any) -> None:
    """Assert that a token is refused with a sentence that has some words, and nothing of the token."""
    text = token if isinstance(token, bytes) else token.encode()
    with pytest.raises(KeyInvalidError, match=words) as caught:
        verifier(RULES._replace(**rules)).verify(text, time.time())
    assert all(part not in str(caught.value) for part in ("alice", ISSUER, "other.example"))


@pytest.mark.parametrize("key", KEYS, ids=ALGORITHMS)
def test_each_algorithm_is_verified(key: Any) -> None:
    """A JWT of each algorithm is accepted, and refused where that algorithm is not in the list."""
    assert verify(key.token()).scopes == {Scope.PREDICT}
    refuse(key.token(), "algorithm", algorithms=frozenset(ALGORITHMS) - {key.algorithm})
    head, payload, signature = key.token().split(".")
    damaged = bytearray(urlsafe_b64decode(signature + "=="))
    damaged[-1] ^= 1
    refuse(f"{head}.{payload}.{base64url(damaged)}", "signature")


def test_the_principal_is_of_the_claims() -> None:
    """The actor is a hash of issuer and subject, the end is that of the JWT, and every model is permitted."""
    end = time.time() + 100
    principal = verify(KEY.token(exp=end, scope="openid softstep:feedback softstep:admin email"))
    assert principal == Principal(principal.actor, frozenset((Scope.FEEDBACK, Scope.ADMIN)), None, end)
    assert principal.actor == verify(RSA_KEY.token()).actor
    assert principal.actor != verify(KEY.token(sub="bob")).actor
    assert principal.actor.startswith("jwt:")
    assert len(principal.actor) == 36


@pytest.mark.parametrize(
    ("claims", "rules", "scopes"),
    [
        ({"scope": ["softstep:predict", "softstep:admin", 1, None]}, {}, {"predict", "admin"}),
        ({"scope": "predict admin"}, {}, set()),
        ({"scope": "softstep:predicts softstep: xsoftstep:admin SOFTSTEP:ADMIN softstep:*"}, {}, set()),
        ({"scope": "softstep:predict\tsoftstep:admin"}, {}, set()),
        ({"scope": None}, {}, set()),
        ({"scope": {"softstep:admin": True}}, {}, set()),
        ({"scope": 7}, {}, set()),
        (
            {"roles": ["api.predict", "api.feedback"]},
            {"scopes_claim": "roles", "scope_prefix": "api."},
            {"predict", "feedback"},
        ),
        ({"scope": " ".join(f"softstep:scope-{at}" for at in range(1000)) + " softstep:predict"}, {}, {"predict"}),
        ({"scope": [f"s{at}" for at in range(1000)] + [f"softstep:{scope}" for scope in Scope]}, {}, set(ALL_SCOPES)),
    ],
)
def test_scopes_are_read_from_their_claim(claims: dict[str, Any], rules: dict[str, Any], scopes: set[str]) -> None:
    """Scopes are the words of one claim with the prefix; all others have no effect."""
    assert verify(KEY.token(**claims), **rules).scopes == scopes


@pytest.mark.parametrize(
    ("claims", "models"),
    [
        ({"models": ["iris", "fraud-*"]}, ("iris", "fraud-*")),
        ({"models": "iris digits"}, ("iris", "digits")),
        ({"models": []}, ()),
        ({"models": 3}, ()),
        ({}, ()),
    ],
)
def test_models_are_read_from_their_claim(claims: dict[str, Any], models: tuple[str, ...]) -> None:
    """With a claim for models, a JWT permits those that it names, and none if it lacks the claim."""
    assert verify(KEY.token(**claims), models_claim="models").models == models
    assert verify(KEY.token(**claims)).models is None


def without(name: str) -> str:
    return KEY.token(**{name: None})


NOW = time.time()
USUAL = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice"}
ENDING = json.dumps(USUAL).encode().replace(b"}", b', "exp": %b}')
CLAIMS = {
    **{f"without {name}": (without(name), "lacks") for name in ("iss", "aud", "sub", "exp")},
    "another issuer": (KEY.token(iss="https://other.example"), "another issuer"),
    "an issuer with a slash more": (KEY.token(iss=f"{ISSUER}/"), "another issuer"),
    "a list of issuers": (KEY.token(iss=[ISSUER]), "another type"),
    "another audience": (KEY.token(aud="other"), "another audience"),
    "other audiences": (KEY.token(aud=["other", "softstep2"]), "another audience"),
    "no audiences": (KEY.token(aud=[]), "another audience"),
    "an audience in an object": (KEY.token(aud={"softstep": 1}), "another type"),
    "an audience within another": (KEY.token(aud="softstep softstep"), "another audience"),
    "an empty subject": (KEY.token(sub=""), "another type"),
    "a number as subject": (KEY.token(sub=7), "another type"),
    "the end now": (KEY.token(exp=NOW), "expired"),
    "the end in 1970": (KEY.token(exp=0), "expired"),
    "an end as text": (KEY.token(exp=str(NOW + 100)), "another type"),
    "an end as boolean": (KEY.token(exp=True), "another type"),
    "no end by null": (
        KEY.sign(json.dumps({"iss": ISSUER, "aud": AUDIENCE, "sub": "a", "exp": None}).encode()),
        "type",
    ),
    "an end that is no number": (KEY.token(exp=float("nan")), "parsed"),
    "an endless end": (KEY.token(exp=float("inf")), "parsed"),
    "an end beyond float64": (KEY.sign(json.dumps({**USUAL, "exp": 7}).replace("7", "1e999").encode()), "parsed|type"),
    "an end of many digits": (
        KEY.sign(json.dumps({**USUAL, "exp": 7}).replace("7", "7" * 400).encode()),
        "parsed|type",
    ),
    "a later beginning": (KEY.token(nbf=NOW + LEEWAY_SECONDS + LIFETIME), "not valid yet"),
    "a later issue": (KEY.token(iat=NOW + LEEWAY_SECONDS + LIFETIME), "not valid yet"),
    "a beginning as text": (KEY.token(nbf="0"), "another type"),
}


@pytest.mark.parametrize(("token", "words"), CLAIMS.values(), ids=CLAIMS)
def test_claims_are_checked(token: str, words: str) -> None:
    """A JWT whose claims are not right is refused, though its signature is valid."""
    refuse(token, words)


def test_clocks_may_differ_a_little() -> None:
    """A JWT is accepted shortly before its beginning, and one with several audiences if one is right."""
    soon = time.time() + LEEWAY_SECONDS / 2
    assert verify(KEY.token(nbf=soon, iat=soon, aud=["other", AUDIENCE]))
    assert verify(KEY.token(nbf=0, iat=0, exp=10**12))


HMAC_SECRETS = {
    "the public key in PEM": RSA_KEY.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "nothing": b"",
}


@pytest.mark.parametrize("secret", HMAC_SECRETS.values(), ids=HMAC_SECRETS)
def test_a_public_key_is_no_secret(secret: bytes) -> None:
    """A JWT that is signed with a shared secret is refused, also if the secret is the public key."""
    head = base64url(json.dumps({"alg": "HS256", "kid": "RS256", "typ": "JWT"}).encode())
    text = f"{head}.{RSA_KEY.token().split('.')[1]}"
    refuse(f"{text}.{base64url(digest(secret, text.encode(), sha256))}", "algorithm")


HEAD, PAYLOAD, SIGNATURE = KEY.token().split(".")


def with_header(text: bytes) -> str:
    """Return a JWT whose header is a text, signed by the issuer's key."""
    signed = f"{base64url(text)}.{PAYLOAD}"
    return f"{signed}.{base64url(KEY.signature(signed.encode()))}"


HEADERS: dict[str, tuple[str | bytes, str]] = {
    "no algorithm": (KEY.token({"alg": "none"}), "algorithm"),
    "no algorithm and no signature": (KEY.token({"alg": "none"}).rpartition(".")[0] + ".", "parsed"),
    "an algorithm in other letters": (KEY.token({"alg": "es256"}), "algorithm"),
    "a list of algorithms": (KEY.token({"alg": ["ES256"]}), "parsed"),
    "a missing algorithm": (KEY.token({"alg": None}), "parsed"),
    "an algorithm of another kind of key": (KEY.token({"alg": "RS256"}), "key that signed"),
    "an algorithm of another curve": (KEY.token({"alg": "ES384"}), "key that signed"),
    "another key's name": (KEY.token({"kid": "other"}), "key that signed"),
    "a number as name": (KEY.token({"kid": 1}), "parsed"),
    "another key": (OTHER.token({"kid": KEY.id}), "signature"),
    "another key with its public part": (OTHER.token({"kid": KEY.id, "jwk": OTHER.jwk()}), "signature"),
    "a URL of keys": (OTHER.token({"kid": KEY.id, "jku": "https://other.example/keys"}), "signature"),
    "a URL of certificates": (OTHER.token({"kid": KEY.id, "x5u": "https://other.example/keys"}), "signature"),
    "a chain of certificates": (OTHER.token({"kid": KEY.id, "x5c": ["AAAA"]}), "signature"),
    "critical members": (KEY.token({"crit": ["exp"], "exp": 1}), "parsed"),
    "critical members that are empty": (KEY.token({"crit": []}), "parsed"),
    "critical members by null": (with_header(b'{"alg":"ES256","kid":"ES256","crit":null}'), "parsed"),
    "an unencoded payload": (KEY.token({"b64": False, "crit": ["b64"]}), "parsed"),
    "an unencoded payload, not critical": (KEY.token({"b64": False}), "parsed"),
    "another type": (KEY.token({"typ": "logout+jwt"}), "parsed"),
    "a proof of possession": (KEY.token({"typ": "dpop+jwt"}), "parsed"),
    "a list": (with_header(b'["ES256"]'), "parsed"),
    "a text": (with_header(b'"ES256"'), "parsed"),
    "no JSON": (with_header(b"alg=ES256"), "parsed"),
    "bytes that are no UTF-8": (with_header(b'{"alg":"ES256","kid":"\xff"}'), "parsed"),
    "half a character": (with_header(b'{"alg":"ES256","kid":"\\ud800"}'), "parsed"),
    "deep nesting": (with_header(b"[" * 700), "parsed"),
    "a long header": (KEY.token({"more": "a" * 800}), "parsed"),
    "five parts": (f"{KEY.token()}.AAAA.AAAA", "parsed"),
    "two parts": (KEY.token().rpartition(".")[0], "parsed"),
    "an empty part": (f".{PAYLOAD}.{SIGNATURE}", "parsed"),
    "an empty payload": (KEY.sign(b""), "parsed"),
    "padding": (KEY.token() + "==", "parsed"),
    "the other alphabet": (f"{HEAD}.{PAYLOAD[:-4]}+/+/.{SIGNATURE}", "parsed"),
    "space within": (KEY.token().replace(".", ". "), "parsed"),
    "a line's end": (KEY.token() + "\n", "parsed"),
    "a nested JWT": (KEY.sign(KEY.token().encode(), cty="JWT"), "parsed"),
    "a list of claims": (KEY.sign(b'["iss"]'), "parsed"),
    "deep claims": (KEY.sign(b'{"a":' + b"[" * 5000), "parsed"),
    "a huge JWT": (KEY.token(more="a" * JWT_BYTES_MAX), "parsed"),
    "a long signature": (f"{KEY.token()}{'A' * 2000}", "parsed"),
    "a short signature": (KEY.token()[:-40], "signature"),
    "a signature of zeros": (f"{KEY.token().rpartition('.')[0]}.{base64url(bytes(64))}", "signature"),
    "bytes beyond ASCII": (KEY.token().encode() + b"\xff", "parsed"),
}


@pytest.mark.parametrize(("token", "words"), HEADERS.values(), ids=HEADERS)
def test_other_tokens_are_refused(token: str | bytes, words: str) -> None:
    """A text that is no signed JWT, or that asks for another key or algorithm, is refused."""
    refuse(token, words)


@pytest.mark.parametrize("header", [{"typ": None}, {"typ": "at+jwt"}, {"typ": "application/at+JWT"}, {"x": {"y": 1}}])
def test_usual_headers_are_accepted(header: dict[str, Any]) -> None:
    """Access tokens of each usual type are accepted, and unknown members are ignored."""
    assert verify(KEY.token(header))


def test_a_token_without_a_name_needs_a_single_key() -> None:
    """Without `kid` a JWT is verified by the only key of its algorithm; of two keys with one name either may fit."""
    token = KEY.token({"kid": None}).encode()
    assert verifier(content=key_set(KEY, RSA_KEY)).verify(token, time.time())
    with pytest.raises(KeyInvalidError):
        verifier(content=key_set(KEY, OTHER)).verify(token, time.time())
    both = key_set(OTHER._replace(id=KEY.id), KEY)
    assert verifier(content=both).verify(KEY.token().encode(), time.time())


def test_without_keys_the_issuer_is_unavailable() -> None:
    """While no key set was read, a JWT is neither valid nor invalid."""

    def fail() -> bytes:
        raise SigningKeysError("away")

    unread = JwtVerifier(RULES, JwksSource(fail, 0, 1), bytes(32))
    with pytest.raises(IssuerUnavailableError):
        unread.verify(KEY.token().encode(), time.time())
    with pytest.raises(KeyInvalidError):
        unread.verify(b"a.b.c", time.time())


def test_changed_keys_are_noticed_once() -> None:
    """The verifier says once that the keys have changed, and then verifies with the new ones alone."""
    sets = [key_set(KEY)]
    checked = JwtVerifier(RULES, JwksSource(lambda: sets[0], 0, 1), bytes(32))
    assert not checked.has_changed()
    for key, gone in ((KEY, OTHER), (OTHER, KEY)):
        sets[0] = key_set(key)
        checked.source.update()
        checked.source.update()
        assert checked.has_changed()
        assert not checked.has_changed()
        assert checked.verify(key.token().encode(), time.time())
        with pytest.raises(KeyInvalidError):
            checked.verify(gone.token().encode(), time.time())


def test_settings_make_the_verifier(tmp_path: Any) -> None:
    """Without an issuer there is none; with one its rules are those of the settings."""
    assert make_jwt_verifier(Settings(), bytes(32)) is None
    path = tmp_path / "jwks.json"
    path.write_bytes(key_set(KEY))
    chosen = Settings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_keys=str(path), jwt_models_claim="models")
    made = make_jwt_verifier(chosen, bytes(32))
    assert made is not None
    assert made.source.update()
    assert made.verify(KEY.token(models=["iris"]).encode(), time.time()).models == ("iris",)


FUZZED = verifier()
PARTS = st.binary(max_size=60).map(base64url) | st.text("AZaz09-_.=+/ ", max_size=40)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=3,
)


def verify_as_declared(text: bytes) -> None:
    """Verify a text, which may raise the declared errors alone."""
    with suppress(KeyInvalidError, IssuerUnavailableError):
        FUZZED.verify(text, time.time())


@settings(deadline=None)
@given(st.binary() | st.lists(PARTS, min_size=2, max_size=5).map(".".join).map(str.encode))
def test_any_text_is_refused_as_declared(text: bytes) -> None:
    """Any bytes raise a declared error and no other."""
    with pytest.raises(KeyInvalidError):
        FUZZED.verify(text, time.time())


@settings(deadline=None)
@given(st.sampled_from(KEYS), st.integers(0, 1 << 16), st.integers(1, 255))
def test_a_changed_token_is_refused(key: Any, place: int, change: int) -> None:
    """A JWT of which one byte was changed is refused."""
    text = bytearray(key.token(jti="x").encode())
    text[place % len(text)] ^= change
    with pytest.raises(KeyInvalidError):
        FUZZED.verify(bytes(text), time.time())


NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "x5u", "zip", "enc", "cty"])
CLAIMED = st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "scope", "models"])


@settings(deadline=None)
@given(st.sampled_from(KEYS), st.dictionaries(NAMES, JSON_VALUES, max_size=3), st.dictionaries(CLAIMED, JSON_VALUES))
def test_any_signed_token_is_judged(key: Any, header: dict[str, Any], claims: dict[str, Any]) -> None:
    """Whatever the members of a signed JWT are, it is accepted or refused as declared."""
    verify_as_declared(key.sign(json.dumps({**USUAL, "exp": time.time() + 300, **claims}).encode(), **header).encode())


@settings(deadline=None)
@given(st.sampled_from(KEYS), st.binary())
def test_any_signed_payload_is_judged(key: Any, payload: bytes) -> None:
    """Whatever bytes are signed, they are refused as declared."""
    verify_as_declared(key.sign(payload).encode())
