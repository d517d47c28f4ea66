"""The file of API keys finds the principal of a key, and refuses anything that is not such a file."""

import stat
from datetime import UTC, datetime
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.api_key import digest_of, make_key
from service.access.key_file import (
    FILE_BYTES_MAX,
    KeyRecord,
    KeyTable,
    SecretRecord,
    file_state,
    read_keys,
    write_keys,
)
from service.access.principal import Limits, Principal
from service.access.scopes import Scope
from service.errors import ApiKeysError
from tests.support.api_keys import add_key

NOW = 1_800_000_000.0
GOLDEN = """{
 "format": 1,
 "keys": [
  {
   "id": "k7m2q9xd",
   "name": "fraud team",
   "created": "2026-11-29T09:00:00Z",
   "scopes": [
    "predict",
    "feedback"
   ],
   "models": [
    "fraud-*"
   ],
   "secrets": [
    {
     "sha256": "0000000000000000000000000000000000000000000000000000000000000000",
     "created": "2026-11-29T09:00:00Z",
     "expires": "2027-02-27T09:00:00Z"
    }
   ],
   "limits": {
    "requests_per_second": 100.0,
    "rows_per_second": null,
    "requests_in_flight": null,
    "feedback_events_per_hour": null,
    "importance_per_hour": null
   },
   "revoked": null
  }
 ]
}
"""


def test_the_file_is_golden(tmp_path: Path) -> None:
    """The file's text stays as it is, and reading returns what was written."""
    path = tmp_path / "keys.json"
    path.write_text(GOLDEN)
    (record,) = read_keys(path).keys
    assert record.scopes == (Scope.PREDICT, Scope.FEEDBACK)
    path.unlink()  # a file that is replaced keeps its permissions
    write_keys(path, [record])
    assert path.read_text() == GOLDEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_are_found(tmp_path: Path) -> None:
    """A key has the scopes, models and limits of its record; an unknown key has none."""
    path = tmp_path / "keys.json"
    first = add_key(path, Scope.PREDICT, models=("fraud-*", "iris"), limits={"requests_per_second": 5})
    second = add_key(path)
    table = KeyTable(read_keys(path).keys)
    one, other = (table.find(text.encode(), NOW) for text in (first, second))
    actor = f"key:{first[9:17]}"
    assert one == Principal(actor, frozenset([Scope.PREDICT]), ("fraud-*", "iris"), inf, Limits(5))
    assert other is not None
    assert other.scopes == frozenset(Scope)
    assert other.permits_model("anything")
    assert [one.permits_model(name) for name in ("iris", "fraud-7", "IRIS", "irises", "fraud")] == [1, 1, 0, 0, 0]
    assert table.find(make_key().text.encode(), NOW) is None
    assert table.find(make_key(first[9:17]).text.encode(), NOW) is None
    assert table.find(b"", NOW) is None
    assert KeyTable().find(first.encode(), NOW) is None


def test_two_secrets_live_until_they_end() -> None:
    """Both secrets of a key are accepted until each one expires; a revoked key has none."""
    old, new = make_key("k7m2q9xd"), make_key("k7m2q9xd")
    end = datetime.fromtimestamp(NOW, UTC)
    record = KeyRecord(
        id="k7m2q9xd",
        name="",
        created=end,
        scopes=(Scope.ADMIN,),
        secrets=(
            SecretRecord(sha256=digest_of(old.text.encode()).hex(), created=end, expires=end),
            SecretRecord(sha256=digest_of(new.text.encode()).hex(), created=end),
        ),
    )
    table = KeyTable([record])
    before, after = (
        [principal and principal.expires for principal in (table.find(key.text.encode(), now) for key in (old, new))]
        for now in (NOW - 1, NOW)
    )
    assert before == [NOW, inf]
    assert after == [None, inf]
    revoked = KeyTable([record.model_copy(update={"revoked": end})])
    assert revoked.find(new.text.encode(), NOW) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 2}',
        '{"format": 1, "keys": [{}]}',
        '{"format": 1, "key": []}',
        GOLDEN.replace("predict", "everything"),
        GOLDEN.replace("k7m2q9xd", "../../x"),
        GOLDEN.replace('"2027-02-27T09:00:00Z"', '"2027-02-27T09:00:00"'),
        GOLDEN.replace("100.0", "-1"),
        GOLDEN.replace("100.0", "NaN"),
        GOLDEN.replace("0" * 64, "0" * 63),
        GOLDEN.replace("\n  }\n ]", "\n  }, " + GOLDEN[GOLDEN.index("[") + 1 : GOLDEN.rindex("]")] + "]"),
        " " * (FILE_BYTES_MAX + 1),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    """A file that is damaged, of another format or too large is refused, and its content is not repeated."""
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(ApiKeysError) as caught:
        read_keys(path)
    assert "everything" not in str(caught.value)
    assert "fraud team" not in str(caught.value)


@given(content=st.binary())
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Random bytes are no file of keys."""
    path = tmp_path_factory.getbasetemp() / "random-keys.json"
    path.write_bytes(content)
    with pytest.raises(ApiKeysError):
        read_keys(path)


def test_a_file_that_changes_has_another_state(tmp_path: Path) -> None:
    """A file that is replaced or missing is noticed without reading it."""
    path = tmp_path / "keys.json"
    assert file_state(path) is None
    add_key(path)
    assert file_state(path / "within") is None
    before = file_state(path)
    assert before == file_state(path)
    add_key(path)
    assert file_state(path) != before
