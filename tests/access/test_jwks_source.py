"""The keys of an issuer are followed: they change with the set, stay when it fails, and are not read too often."""

import threading
import time
from functools import partial
from pathlib import Path

import pytest

from service.access.jwks_source import JwksSource, read_jwks_file
from service.access.jwks_url import fetch_jwks
from service.errors import SigningKeysError
from tests.support.jwt_issuer import issuer_key, key_server, key_set
from tests.support.waiting import wait_until

FIRST, SECOND = issuer_key("first"), issuer_key("second")


class Sets:
    """A source's function that returns what a test says, and counts its calls."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reason: str | None = None
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        if self.reason is not None:
            raise SigningKeysError(self.reason)
        return self.content


def ids(source: JwksSource) -> list[str | None] | None:
    return None if source.keys is None else [key.id for key in source.keys]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().partition(": ")[2] for record in caplog.records if "cannot be used" in record.message]


def test_the_last_good_keys_stay(caplog: pytest.LogCaptureFixture) -> None:
    """A set that cannot be read or parsed leaves the keys; each reason is logged once, until the set is read again."""
    sets = Sets(key_set(FIRST))
    source = JwksSource(sets, 0, 1)
    assert ids(source) is None
    assert source.update()
    keys = source.keys
    assert ids(source) == ["first"]
    for reason in ("away", "down", "away", "away"):
        sets.reason = reason
        assert not source.update()
    sets.reason, sets.content = None, b"{}"
    assert not source.update()
    assert source.keys is keys
    assert lines(caplog) == ["away", "down", "it is not a JSON Web Key Set of at most 100 keys"]
    sets.content = key_set(FIRST)
    assert source.update()
    assert source.keys is keys  # the same set makes no new keys
    sets.reason = "away"
    assert not source.update()
    assert lines(caplog)[3:] == ["away"]


def test_a_file_is_followed(tmp_path: Path) -> None:
    """A file is read again when it changes; one that is missing at first is read once it is there."""
    path = tmp_path / "jwks.json"
    source = JwksSource.of(str(path), 300)
    source.start()
    source.wait_until_tried()
    assert ids(source) is None
    path.write_bytes(key_set(FIRST))
    wait_until(lambda: ids(source) == ["first"])
    path.write_bytes(key_set(SECOND, FIRST))
    wait_until(lambda: ids(source) == ["second", "first"])
    path.unlink()
    time.sleep(0.7)
    assert ids(source) == ["second", "first"]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """Whatever the system refuses to read is the declared error."""
    with pytest.raises(SigningKeysError, match="Is a directory"):
        read_jwks_file(tmp_path)


def test_a_url_is_read_when_keys_are_wanted() -> None:
    """A wish for keys has the set read before its time, and many wishes have it read once."""
    with key_server(key_set(FIRST)) as server:
        source = JwksSource(partial(fetch_jwks, server.url), 0.3, 300)
        source.start()
        source.wait_until_tried()
        assert ids(source) == ["first"]
        server.content = key_set(SECOND)
        threads = [threading.Thread(target=lambda: [source.want_keys() for _ in range(1000)]) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: ids(source) == ["second"])
        assert server.requests <= 3


def test_readings_keep_a_pause() -> None:
    """While keys are wanted all the time, and while readings fail, one pause lies between two of them."""
    for reason in (None, "away"):
        sets = Sets(key_set(FIRST))
        sets.reason = reason
        source = JwksSource(sets, 0.2, 300)
        source.start()
        began = time.monotonic()
        while time.monotonic() - began < 0.5:
            source.want_keys()
            time.sleep(0.01)
        assert 2 <= sets.calls <= 1 + (time.monotonic() - began) / 0.2


def test_a_url_is_read_again_after_its_time() -> None:
    """Without any wish the set is read again when its time is over."""
    sets = Sets(key_set(FIRST))
    source = JwksSource(sets, 0.01, 0.05)
    source.start()
    sets.content = key_set(SECOND)
    wait_until(lambda: ids(source) == ["second"])
    wait_until(lambda: sets.calls > 3)
