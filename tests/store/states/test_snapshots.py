"""Snapshots are written completely or not at all, and every damage is detected."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.errors import SnapshotError
from service.store.states import snapshots as module
from service.store.states.snapshots import read_snapshot, write_snapshot
from service.store.states.state_folder import prune_snapshots
from tests.support.state_files import ARRAYS, FIELDS, write_state

# A slow disk is no failure.
on_disk = settings(deadline=None, max_examples=60)


@pytest.mark.parametrize("durable", [False, True])
def test_values_are_written_and_read(tmp_path: Path, *, durable: bool) -> None:
    """Arrays are mapped: read-only, aligned, without a copy."""
    snapshot = read_snapshot(write_state(tmp_path / "new" / "folder", durable=durable))
    assert snapshot.fields == FIELDS
    assert snapshot.arrays.keys() == ARRAYS.keys()
    for name, array in snapshot.arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.ctypes.data % 64 == 0


@on_disk
@given(
    st.dictionaries(
        st.text(max_size=5),
        arrays.arrays(st.sampled_from(["<f4", ">f8", "<i4", "<i8", "|u1", "|b1"]), arrays.array_shapes(min_side=0)),
        max_size=4,
    )
)
def test_any_arrays_are_read_as_they_were(tmp_path_factory: pytest.TempPathFactory, given_arrays: dict) -> None:
    """Arrays of any shape, memory order and byte order are read bit for bit."""
    turned = {name: array.T for name, array in given_arrays.items()}
    snapshot = read_snapshot(write_snapshot(tmp_path_factory.mktemp("s"), 0, {}, turned, durable=False))
    assert {n: a.astype(a.dtype.newbyteorder("<")).tobytes() for n, a in turned.items()} == {
        n: a.tobytes() for n, a in snapshot.arrays.items()
    }


def test_a_mapped_file_outlives_its_name(tmp_path: Path) -> None:
    """A mapped file stays readable while its name is replaced and deleted."""
    before = read_snapshot(write_state(tmp_path))
    write_snapshot(tmp_path, 7, {}, {"weight": np.zeros((4, 3), "f4")}, durable=False)
    (tmp_path / "7").unlink()
    np.testing.assert_array_equal(before.arrays["weight"], ARRAYS["weight"])


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """A flipped bit in any byte is detected, except in the zeros of the head, which mean nothing."""
    path = write_state(tmp_path)
    content = path.read_bytes()
    for at in range(len(content)):
        if not 56 <= at < 64:
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
            with pytest.raises(SnapshotError):
                read_snapshot(path)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    path = write_state(tmp_path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(SnapshotError):
            read_snapshot(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(SnapshotError):
        read_snapshot(path)


def sealed(header: bytes) -> bytes:
    """Return a file with this header, no arrays, and a valid checksum."""
    digest = module.hashlib.sha256(header).digest()
    return module.HEAD.pack(module.MAGIC, 1, len(header), 64 + len(header), digest) + header


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b'{"arrays": []}',
        b'{"fields": {}}',
        b'{"fields": {}, "arrays": [1]}',
        b'{"fields": {}, "arrays": [["x", "<f4"]]}',
        b'{"fields": {}, "arrays": [["x", "|O", [1], 64]]}',
        b'{"fields": {}, "arrays": [["x", "<f4", [1], 65]]}',
        b'{"fields": {}, "arrays": [["x", "<f4", [1], -64]]}',
        b'{"fields": {}, "arrays": [["x", "<f4", [-1], 64]]}',
        b'{"fields": {}, "arrays": [["x", "<f4", [99999999999, 99999999999], 64]]}',
        b'{"fields": {}, "arrays": [["x", "<f4", ["a"], 64]]}',
        b'{"fields": {}, "arrays": [["x", ["<f4"], [1], 64]]}',
        b'{"fields": {}, "arrays": [["x", "<f4", [1], "64"]]}',
    ],
)
def test_a_header_that_says_nonsense_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "1").write_bytes(sealed(header))
    with pytest.raises(SnapshotError):
        read_snapshot(tmp_path / "1")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Any bytes, after a valid head or without one, raise SnapshotError and nothing else."""
    path = tmp_path_factory.mktemp("s") / "1"
    for written in (content, module.MAGIC + content, sealed(content)):
        path.write_bytes(written)
        with pytest.raises(SnapshotError):
            read_snapshot(path)


def test_a_link_or_a_pipe_is_not_a_snapshot(tmp_path: Path) -> None:
    path = write_state(tmp_path)
    (tmp_path / "1").symlink_to(path)
    os.mkfifo(tmp_path / "2")
    for name in ("1", "2", "3"):
        with pytest.raises(SnapshotError):
            read_snapshot(tmp_path / name)


@pytest.mark.parametrize("call", ["open", "fsync", "rename", "unlink"])
def test_a_writer_that_is_killed_leaves_no_half_file(tmp_path: Path, call: str) -> None:
    """A writer killed before any step leaves the old file or the new one, and at most a temporary file."""
    path = write_state(tmp_path, seq=1)
    pid = os.fork()
    if pid == 0:
        try:
            die_before(call)
            write_state(tmp_path, durable=True, seq=2)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert read_snapshot(path).fields["seq"] == (2 if call == "unlink" else 1)
    prune_snapshots(tmp_path, 9)
    assert [file.name for file in tmp_path.iterdir()] == ["7"]


def die_before(call: str) -> None:
    """Let this process be killed before the named step."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if call in {"open", "fsync"}:
        setattr(os, call, die)
    else:
        setattr(Path, call, die)


def test_a_disk_that_refuses_leaves_no_stray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "full")

    path = write_state(tmp_path, seq=1)
    monkeypatch.setattr(module.os, "fsync", refuse)
    with pytest.raises(OSError, match="full"):
        write_state(tmp_path, durable=True, seq=2)
    assert [file.name for file in tmp_path.iterdir()] == ["7"]
    assert read_snapshot(path).fields["seq"] == 1
