"""The authorizer follows the file of API keys, and forgets what no longer holds."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.access.key_file import read_keys, write_keys
from service.access.principal import ANYONE
from service.access.scopes import Scope
from service.errors import (
    ApiKeysError,
    KeyInvalidError,
    KeyMissingError,
    ModelNotPermittedError,
    ScopeMissingError,
)
from service.serve.authorization import authorizer as module
from service.serve.authorization.authorizer import Authorizer
from service.serve.responses import RequestHead
from tests.support.api_keys import add_key


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
    changes: list[bool] = []
    authorizer.on_change.append(lambda: changes.append(True))
    assert authorizer.authorize(with_key(key), Scope.ADMIN)
    refresh(authorizer)
    assert changes == []
    monkeypatch.setattr(module.time, "time", lambda: end.timestamp() + 0.1)
    with pytest.raises(KeyInvalidError):
        authorizer.authorize(with_key(key), Scope.ADMIN)
    refresh(authorizer)
    refresh(authorizer)
    assert changes == [True]


def test_a_file_that_fails_leaves_the_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A missing or damaged file changes nothing; damage is logged once."""
    path = tmp_path / "keys.json"
    key = add_key(path)
    authorizer = Authorizer(path)
    path.rename(tmp_path / "away")
    refresh(authorizer)
    assert not authorizer.is_open
    path.write_text("{")
    refresh(authorizer)
    refresh(authorizer)
    assert authorizer.authorize(with_key(key), Scope.ADMIN)
    with pytest.raises(KeyMissingError):
        authorizer.authorize(RequestHead(), Scope.PREDICT)
    assert len([record for record in caplog.records if "API keys stay" in record.getMessage()]) == 1


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
