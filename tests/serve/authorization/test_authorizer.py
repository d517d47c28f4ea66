"""The authorizer follows the file of API keys, and forgets what no longer holds."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from service.access.api_key import make_key
from service.access.jwks_source import JwksSource
from service.access.jwt_verifier import JwtRules, JwtVerifier
from service.access.key_file import read_keys, write_keys
from service.access.principal import ANYONE, Principal
from service.access.scopes import Scope
from service.errors import (
    ApiKeysError,
    KeyInvalidError,
    KeyMissingError,
    ModelNotPermittedError,
    ScopeMissingError,
)
from service.process.shared_memory import SharedMemory
from service.serve.authorization import authorizer as module
from service.serve.authorization.authorizer import Authorizer, make_authorizer
from service.serve.responses import RequestHead
from service.settings import Settings
from tests.support.api_keys import add_key
from tests.support.jwt_issuer import AUDIENCE, ISSUER, issuer_key, key_set


def with_key(key: str) -> RequestHead:
    return RequestHead(authorization=f"Bearer {key}".encode())


def refresh(authorizer: Authorizer) -> None:
    authorizer.use(authorizer.read_changed())


def test_without_a_file_everybody_is_anyone(tmp_path: Path) -> None:
    """Without a file every call is permitted; once there is one, each call needs a key."""
    path = tmp_path / "keys.json"
    authorizer = Authorizer(path)
    assert authorizer.is_open
    assert authorizer.authorize(RequestHead(), Scope.ADMIN, "iris") is ANYONE
    assert authorizer.principal_of(RequestHead()) is ANYONE
    key = add_key(path)
    refresh(authorizer)
    assert not authorizer.is_open
    with pytest.raises(KeyMissingError):
        authorizer.authorize(RequestHead(), Scope.ADMIN, "iris")
    assert authorizer.authorize(with_key(key), Scope.ADMIN, "iris").actor == f"key:{key[9:17]}"


def test_a_closed_service_needs_keys_before_there_is_a_file(tmp_path: Path) -> None:
    """A service that others reach stays closed in a worker that starts while the file is missing."""
    path = tmp_path / "keys.json"
    authorizer = Authorizer(path, closed=True)
    assert not authorizer.is_open
    with pytest.raises(KeyMissingError):
        authorizer.authorize(RequestHead(), Scope.PREDICT)
    with pytest.raises(KeyInvalidError):
        authorizer.authorize(with_key(make_key().text), Scope.PREDICT)
    key = add_key(path)
    refresh(authorizer)
    assert authorizer.authorize(with_key(key), Scope.ADMIN)


def test_every_call_is_refused_before_the_log_was_asked(tmp_path: Path) -> None:
    """A worker is closed until it is known that there are no keys; keys that appear close it for good."""
    memory = SharedMemory(1, 8)
    memory.keys_unknown.set(1)
    settings = Settings(data=tmp_path)
    authorizer, other = (make_authorizer(settings, None, bytes(32), memory) for _ in range(2))
    forgotten: list[None] = []
    authorizer.on_change.append(lambda: forgotten.append(None))
    for _ in range(2):
        refresh(authorizer)
        assert not authorizer.is_open
        with pytest.raises(KeyMissingError):
            authorizer.authorize(RequestHead(), Scope.PREDICT)
        with pytest.raises(KeyInvalidError):
            authorizer.authorize(with_key(make_key().text), Scope.PREDICT)
    assert not memory.keyed.get()
    memory.keys_unknown.set(0)
    authorizer.forget_expired()
    assert authorizer.is_open
    assert len(forgotten) == 1
    authorizer.forget_expired()
    assert len(forgotten) == 1
    key = add_key(settings.keys_path)
    for one in (authorizer, other):
        refresh(one)
        assert one.authorize(with_key(key), Scope.ADMIN).actor == f"key:{key[9:17]}"
    assert memory.keyed.get()
    settings.keys_path.unlink()
    other.forget_expired()
    later = make_authorizer(settings, None, bytes(32), memory)
    assert [one.is_open for one in (authorizer, other, later)] == [False] * 3


def test_a_copy_counts_before_the_log_was_asked(tmp_path: Path) -> None:
    """Its keys are accepted, and no answer of the log opens the service."""
    memory = SharedMemory(1, 8)
    memory.keys_unknown.set(1)
    settings = Settings(data=tmp_path)
    key = add_key(settings.keys_path)
    authorizer = make_authorizer(settings, None, bytes(32), memory)
    assert authorizer.authorize(with_key(key), Scope.ADMIN)
    assert memory.keyed.get()
    memory.keys_unknown.set(0)
    authorizer.forget_expired()
    assert not authorizer.is_open


def test_scopes_and_models_are_enforced(tmp_path: Path) -> None:
    """A key permits its scopes and its models alone."""
    path = tmp_path / "keys.json"
    key = add_key(path, Scope.PREDICT, models=("iris",))
    authorizer = Authorizer(path)
    assert authorizer.authorize(with_key(key), Scope.PREDICT, "iris")
    assert authorizer.authorize(with_key(key), Scope.PREDICT)
    with pytest.raises(ModelNotPermittedError):
        authorizer.authorize(with_key(key), Scope.PREDICT, "digits")
    for scope in (Scope.FEEDBACK, Scope.ADMIN):
        with pytest.raises(ScopeMissingError):
            authorizer.authorize(with_key(key), scope, "iris")


def test_keys_are_read_from_both_headers(tmp_path: Path) -> None:
    """A key stands in Authorization with the scheme Bearer in any case, or in X-API-Key, which counts first."""
    path = tmp_path / "keys.json"
    key = add_key(path).encode()
    authorizer = Authorizer(path)
    good = [
        RequestHead(authorization=b"bearer " + key),
        RequestHead(authorization=b"BEARER  " + key + b" "),
        RequestHead(api_key=key),
        RequestHead(api_key=key, authorization=b"Basic abc"),
        RequestHead(api_key=key, authorization=b"Bearer other"),
    ]
    assert {authorizer.authorize(head, Scope.ADMIN).actor for head in good} == {f"key:{key[9:17].decode()}"}
    for head in (RequestHead(), RequestHead(authorization=b"Basic " + key), RequestHead(authorization=b"Bearer")):
        with pytest.raises(KeyMissingError):
            authorizer.authorize(head, Scope.ADMIN)
    for head in (RequestHead(api_key=b""), RequestHead(api_key=key + b"x"), RequestHead(authorization=b"Bearer \xff")):
        with pytest.raises(KeyInvalidError):
            authorizer.authorize(head, Scope.ADMIN)


def test_a_revoked_key_is_refused(tmp_path: Path) -> None:
    """A key that was used before is refused once the file has been read again, and the callbacks are called."""
    path = tmp_path / "keys.json"
    key, other = add_key(path), add_key(path)
    authorizer = Authorizer(path)
    changes: list[bool] = []
    authorizer.on_change.append(lambda: changes.append(True))
    assert authorizer.authorize(with_key(key), Scope.ADMIN)
    refresh(authorizer)
    assert changes == []
    first, second = read_keys(path).keys
    write_keys(path, [first.model_copy(update={"secrets": (), "revoked": first.created}), second])
    refresh(authorizer)
    assert changes == [True]
    with pytest.raises(KeyInvalidError):
        authorizer.authorize(with_key(key), Scope.ADMIN)
    assert authorizer.authorize(with_key(other), Scope.ADMIN)


def test_an_expired_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is refused at its end, and remembered heads are forgotten at the next look."""
    path = tmp_path / "keys.json"
    end = datetime.now(UTC) + timedelta(hours=1)
    key = add_key(path, expires=end)
    authorizer = Authorizer(path)
    times: list[float] = []
    authorizer.on_expiry.append(times.append)
    authorizer.on_change.append(lambda: pytest.fail("nothing has changed"))
    assert authorizer.authorize(with_key(key), Scope.ADMIN)
    refresh(authorizer)
    assert times == []
    later = end.timestamp() + 0.1
    monkeypatch.setattr(module.time, "time", lambda: later)
    with pytest.raises(KeyInvalidError):
        authorizer.authorize(with_key(key), Scope.ADMIN)
    refresh(authorizer)
    refresh(authorizer)
    assert times == [later]


def test_a_file_that_fails_leaves_the_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A missing or damaged file changes nothing, and each is logged once."""
    path = tmp_path / "keys.json"
    key = add_key(path)
    authorizer = Authorizer(path)
    path.rename(tmp_path / "away")
    refresh(authorizer)
    refresh(authorizer)
    assert not authorizer.is_open
    path.write_text("{")
    refresh(authorizer)
    refresh(authorizer)
    assert authorizer.authorize(with_key(key), Scope.ADMIN)
    with pytest.raises(KeyMissingError):
        authorizer.authorize(RequestHead(), Scope.PREDICT)
    missing, damaged = (record.getMessage() for record in caplog.records)
    assert missing == "the API keys stay as they were: the file of API keys is missing"
    assert damaged.startswith("the API keys stay as they were: the file of API keys is damaged")


def test_a_file_that_appears_damaged_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A service without keys logs a file that cannot be read, and follows it once it can be."""
    path = tmp_path / "keys.json"
    authorizer = Authorizer(path)
    path.write_text("{")
    refresh(authorizer)
    assert authorizer.is_open
    assert len(caplog.records) == 1
    path.unlink()
    add_key(path)
    refresh(authorizer)
    assert not authorizer.is_open


def test_a_damaged_file_ends_the_start(tmp_path: Path) -> None:
    """A service whose keys cannot be read at the start does not start."""
    path = tmp_path / "keys.json"
    path.write_text("{")
    with pytest.raises(ApiKeysError):
        Authorizer(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ApiKeysError):
        Authorizer(path)


def test_a_file_that_is_damaged_later_opens_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A service that has no keys goes on as it was when a damaged file appears, and reads it once it is mended."""
    path = tmp_path / "keys.json"
    authorizer = Authorizer(path)
    path.write_text("{")
    refresh(authorizer)
    assert authorizer.is_open
    assert "API keys stay" in caplog.text
    path.unlink()
    add_key(path)
    refresh(authorizer)
    assert not authorizer.is_open


FIRST, SECOND = issuer_key("first"), issuer_key("second")


class JwtService(NamedTuple):
    """An authorizer with an issuer, whose key set a test replaces.

    Attributes:
        authorizer: The authorizer.
        keys: The file of API keys, which is missing.
        source: The keys of the issuer.
        sets: The key set to read, as the only entry.
    """

    authorizer: Authorizer
    keys: Path
    source: JwksSource
    sets: list[bytes]


@pytest.fixture
def jwts(tmp_path: Path) -> JwtService:
    """An authorizer with an issuer of two keys, and without API keys."""
    sets = [key_set(FIRST, SECOND)]
    source = JwksSource(lambda: sets[0], 0, 1)
    source.update()
    rules = JwtRules(ISSUER, AUDIENCE, frozenset(("ES256",)), "scope", "softstep:", "models")
    path = tmp_path / "keys.json"
    return JwtService(Authorizer(path, JwtVerifier(rules, source, bytes(32))), path, source, sets)


def test_an_issuer_closes_the_service(jwts: JwtService) -> None:
    """With an issuer and without API keys, each call needs a JWT with its scope and model."""
    authorizer = jwts.authorizer
    assert not authorizer.is_open
    with pytest.raises(KeyMissingError, match="needs a JWT or a key"):
        authorizer.authorize(RequestHead(), Scope.PREDICT, "iris")
    for key in ("softstep_k7m2q9xd_x", "abc", "a.b.c"):
        with pytest.raises(KeyInvalidError):
            authorizer.authorize(with_key(key), Scope.PREDICT, "iris")
    head = with_key(FIRST.token(models="iris"))
    assert authorizer.authorize(head, Scope.PREDICT, "iris").actor.startswith("jwt:")
    assert authorizer.authorize(RequestHead(api_key=head.authorization[7:]), Scope.PREDICT)  # type: ignore[index]
    with pytest.raises(ModelNotPermittedError):
        authorizer.authorize(head, Scope.PREDICT, "digits")
    with pytest.raises(ScopeMissingError):
        authorizer.authorize(head, Scope.ADMIN, "iris")


def test_keys_and_tokens_work_side_by_side(jwts: JwtService) -> None:
    """API keys that are created later count beside JWTs."""
    key = add_key(jwts.keys)
    refresh(jwts.authorizer)
    assert jwts.authorizer.authorize(with_key(key), Scope.ADMIN).actor.startswith("key:")
    assert jwts.authorizer.authorize(with_key(FIRST.token()), Scope.PREDICT).actor.startswith("jwt:")


def test_a_verified_token_is_remembered(jwts: JwtService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JWT is verified once, and again after the issuer's keys have changed; without its key it is refused."""
    heads = [with_key(key.token()) for key in (FIRST, SECOND)]
    calls: list[bytes] = []
    verify = JwtVerifier.verify

    def count(self: JwtVerifier, text: bytes, now: float) -> Principal:
        calls.append(text)
        return verify(self, text, now)

    monkeypatch.setattr(JwtVerifier, "verify", count)
    changes: list[bool] = []
    jwts.authorizer.on_change.append(lambda: changes.append(True))
    for _ in range(3):
        for head in heads:
            assert jwts.authorizer.authorize(head, Scope.PREDICT)
    assert len(calls) == 2
    refresh(jwts.authorizer)
    assert changes == []
    jwts.sets[0] = key_set(SECOND)
    assert jwts.source.update()
    refresh(jwts.authorizer)
    assert changes == [True]
    with pytest.raises(KeyInvalidError):
        jwts.authorizer.authorize(heads[0], Scope.PREDICT)
    assert jwts.authorizer.authorize(heads[1], Scope.PREDICT)
    assert len(calls) == 4


def test_only_what_has_expired_is_forgotten(jwts: JwtService, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of one JWT the others stay remembered."""
    now = time.time()
    short, long = (with_key(FIRST.token(exp=now + seconds)) for seconds in (10, 100))
    times: list[float] = []
    jwts.authorizer.on_expiry.append(times.append)
    for head in (short, long):
        assert jwts.authorizer.authorize(head, Scope.PREDICT)
    refresh(jwts.authorizer)
    assert times == []
    monkeypatch.setattr(module.time, "time", lambda: now + 11)
    with pytest.raises(KeyInvalidError, match="JWT has expired"):
        jwts.authorizer.authorize(short, Scope.PREDICT)
    refresh(jwts.authorizer)
    refresh(jwts.authorizer)
    assert times == [now + 11]
    with pytest.raises(KeyInvalidError, match="JWT has expired"):
        jwts.authorizer.authorize(short, Scope.PREDICT)
    monkeypatch.setattr(JwtVerifier, "verify", lambda *_: pytest.fail("it is remembered"))
    assert jwts.authorizer.authorize(long, Scope.PREDICT)


def test_remembered_tokens_are_bounded(jwts: JwtService, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many JWTs there are, and however long, they take a bounded memory."""
    monkeypatch.setattr(module, "REMEMBERED_BYTES_MAX", 2000)
    monkeypatch.setattr(module, "REMEMBERED_MAX", 5)
    for number in range(20):
        token = FIRST.token(jti=number * "a" * 20)
        assert jwts.authorizer.authorize(with_key(token), Scope.PREDICT)
        remembered = jwts.authorizer._remembered  # nothing else shows how much is remembered
        assert token.encode() in remembered
        assert len(remembered) == 1 or sum(map(len, remembered)) <= 2000
        assert len(remembered) <= 5
