"""The audit log has one JSON object a line, whatever happens to a process or a disk."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.audit_log import Action, AuditEntry, append_entry

ENTRY = AuditEntry("key:k7m2q9xd", Action.UNLOAD, "iris", request_id="r-17")


def test_a_line_is_golden(tmp_path: Path) -> None:
    """A line has the time in UTC and the members of its entry, without those that it does not have."""
    path = tmp_path / "folder" / "audit.jsonl"
    append_entry(path, ENTRY)
    append_entry(path, AuditEntry("user:ann", Action.SKIP, "iris/1", seq=17))
    lines = path.read_text().splitlines()
    times = [json.loads(line)["time"] for line in lines]
    first = '"actor":"key:k7m2q9xd","action":"unload","object":"iris","outcome":"done","request_id":"r-17"}'
    second = '"actor":"user:ann","action":"skip","object":"iris/1","outcome":"done","seq":17}'
    assert lines == [f'{{"time":"{times[0]}",{first}', f'{{"time":"{times[1]}",{second}']
    assert all(len(time) == len("2026-11-29T09:04:10.870+00:00") for time in times)
    assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(times[0]) < timedelta(minutes=1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(st.text().filter(lambda text: text.isprintable()) | st.sampled_from(["\n", '"}\n{"', "\x00"]))
def test_no_object_forges_a_line(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Line breaks and quotes of an object are escaped."""
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    append_entry(path, ENTRY._replace(object=name))
    (line,) = path.read_bytes().splitlines()
    assert json.loads(line)["object"] == name


def test_a_line_that_was_cut_short_stays_alone(tmp_path: Path) -> None:
    """What a crash has left without a line break does not spoil the next line."""
    path = tmp_path / "audit.jsonl"
    append_entry(path, ENTRY)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    append_entry(path, ENTRY)
    first, torn, last = path.read_bytes().splitlines()
    assert (first + b"\n", torn) == (whole, whole[:20])
    assert json.loads(last)["object"] == "iris"


def test_many_writers_keep_every_line(tmp_path: Path) -> None:
    """Lines that are written at one time do not mix."""
    path = tmp_path / "audit.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: append_entry(path, ENTRY._replace(object="x" * n)), range(64)))
    assert sorted(len(json.loads(line)["object"]) for line in path.read_text().splitlines()) == list(range(64))


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is written in part is an error, and so is one that cannot be written or synced."""
    path = tmp_path / "audit.jsonl"
    append_entry(path, ENTRY)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    with pytest.raises(OSError, match="No space left on device"):
        append_entry(path, ENTRY)
    monkeypatch.undo()
    append_entry(path, ENTRY)
    assert len(path.read_bytes().splitlines()) == 3
    with pytest.raises(IsADirectoryError):
        append_entry(tmp_path, ENTRY)


def test_a_file_that_was_renamed_is_made_again(tmp_path: Path) -> None:
    """The log goes on in a new file after the old one was moved away."""
    path = tmp_path / "audit.jsonl"
    append_entry(path, ENTRY)
    path.rename(tmp_path / "old")
    append_entry(path, ENTRY)
    assert len(path.read_bytes().splitlines()) == len((tmp_path / "old").read_bytes().splitlines()) == 1
