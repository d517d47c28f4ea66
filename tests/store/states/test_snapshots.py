"""Snapshots and checkpoints: whole or not there, mapped as they were written, and kept on a ladder."""

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
from service.store.states.checkpoints import checkpoints_to_keep, thin_checkpoints
from service.store.states.snapshots import read_fields, read_snapshot, write_snapshot
from service.store.states.state_folder import delete_states, list_seqs, prune_snapshots, read_latest

# A slow disk is no failure.
on_disk = settings(deadline=None, max_examples=60)
FIELDS = {"seq": 7, "epoch": 0, "classes": ["a", "b"], "genesis": "00ff"}
ARRAYS = {
    "weight": np.arange(12, dtype="f4").reshape(4, 3),
    "bias": np.arange(3, dtype="f8"),
    "seen": np.array(9, "i8"),
    "none": np.zeros((0, 3), "f4"),
    "flags": np.array([True, False]),
}


def write(folder: Path, at: int = 7, *, durable: bool = False, **fields: object) -> Path:
    return write_snapshot(folder, at, {**FIELDS, **fields}, ARRAYS, durable=durable)


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_written_is_read(tmp_path: Path, *, durable: bool) -> None:
    """Arrays come back mapped: read-only, aligned, without a copy."""
    snapshot = read_snapshot(write(tmp_path / "new" / "folder", durable=durable))
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
    """Whatever their shapes, memory orders and byte orders, bit for bit."""
    turned = {name: array.T for name, array in given_arrays.items()}
    snapshot = read_snapshot(write_snapshot(tmp_path_factory.mktemp("s"), 0, {}, turned, durable=False))
    assert {n: a.astype(a.dtype.newbyteorder("<")).tobytes() for n, a in turned.items()} == {
        n: a.tobytes() for n, a in snapshot.arrays.items()
    }


def test_a_mapped_file_outlives_its_name(tmp_path: Path) -> None:
    """A reader keeps what it has while the file is replaced and deleted."""
    before = read_snapshot(write(tmp_path))
    write_snapshot(tmp_path, 7, {}, {"weight": np.zeros((4, 3), "f4")}, durable=False)
    (tmp_path / "7").unlink()
    np.testing.assert_array_equal(before.arrays["weight"], ARRAYS["weight"])


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """One bit in each byte of the file, but for the zeros of the head, which mean nothing."""
    path = write(tmp_path)
    content = path.read_bytes()
    for at in range(len(content)):
        if not 56 <= at < 64:
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
            with pytest.raises(SnapshotError):
                read_snapshot(path)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(SnapshotError):
            read_snapshot(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(SnapshotError):
        read_snapshot(path)


def sealed(header: bytes) -> bytes:
    """A file with that header, no arrays, and a checksum that holds."""
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
    """Behind a true head or without one: one known error, nothing else."""
    path = tmp_path_factory.mktemp("s") / "1"
    for written in (content, module.MAGIC + content, sealed(content)):
        path.write_bytes(written)
        with pytest.raises(SnapshotError):
            read_snapshot(path)


def test_a_link_or_a_pipe_is_no_snapshot(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "1").symlink_to(path)
    os.mkfifo(tmp_path / "2")
    for name in ("1", "2", "3"):
        with pytest.raises(SnapshotError):
            read_snapshot(tmp_path / name)


def test_the_newest_whole_file_is_found(tmp_path: Path) -> None:
    """Names that are no seq do not count; a damaged file is passed over."""
    assert (list_seqs(tmp_path / "missing"), read_latest(tmp_path / "missing")) == ([], None)
    for seq in (3, 20, 100):
        write(tmp_path, seq, seq=seq)
    for name in ("007", "x", ".9.abc", "9" * 14):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "100").write_bytes(b"damaged")
    assert list_seqs(tmp_path) == [3, 20, 100]
    found = [read_latest(tmp_path, at_most) for at_most in (None, 99, 19, 2)]
    assert [pair and (pair[0], pair[1].fields["seq"]) for pair in found] == [(20, 20), (20, 20), (3, 3), None]


def test_old_files_and_strays_go(tmp_path: Path) -> None:
    for seq in range(5):
        write(tmp_path, seq)
    (tmp_path / ".9.abc").write_bytes(b"")
    prune_snapshots(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


@pytest.mark.parametrize("call", ["open", "fsync", "rename", "unlink"])
def test_a_writer_that_is_killed_leaves_no_half_file(tmp_path: Path, call: str) -> None:
    """Killed before each step of the writing: the old file stands, or the new one, and a stray name at most."""
    path = write(tmp_path, seq=1)
    pid = os.fork()
    if pid == 0:
        try:
            die_before(call)
            write(tmp_path, durable=True, seq=2)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert read_snapshot(path).fields["seq"] == (2 if call == "unlink" else 1)
    prune_snapshots(tmp_path, 9)
    assert [file.name for file in tmp_path.iterdir()] == ["7"]


def die_before(call: str) -> None:
    """Lets this process die where it would do the named step."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if call == "fsync":
        os.fsync = die
    else:
        setattr(Path, call, die)


def test_a_disk_that_refuses_leaves_no_stray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "full")

    path = write(tmp_path, seq=1)
    monkeypatch.setattr(module.os, "fsync", refuse)
    with pytest.raises(OSError, match="full"):
        write(tmp_path, durable=True, seq=2)
    assert [file.name for file in tmp_path.iterdir()] == ["7"]
    assert read_snapshot(path).fields["seq"] == 1


# The ladder


@given(st.integers(1, 400), st.integers(1, 50))
def test_the_way_back_is_a_quarter_of_the_age(interval: int, rungs: int) -> None:
    """However long it grows, no gap is wider than the interval or a quarter of its youngest event's age."""
    ladder: list[int] = []
    for turn in range(1, rungs * 8):
        head = turn * interval
        ladder = sorted(checkpoints_to_keep(dict.fromkeys([*ladder, head], 1), 10**9))
        assert ladder[-1] == head
        for older, newer in zip([0, *ladder], ladder, strict=False):
            assert newer - older <= max(interval, (head - newer) / 4)
    assert len(ladder) <= 12 + 11 * np.log10(len(ladder) + rungs * 8)


@given(st.dictionaries(st.integers(1, 10**6), st.integers(1, 100), min_size=1), st.integers(0, 500))
def test_the_bytes_are_capped(sizes: dict[int, int], bytes_max: int) -> None:
    """The newest one stays in any case; nothing is kept that was not there."""
    stay = checkpoints_to_keep(sizes, bytes_max)
    assert max(sizes) in stay <= sizes.keys()
    assert sum(sizes[seq] for seq in stay) <= bytes_max or len(stay) == 1


def test_no_checkpoints_are_no_ladder() -> None:
    assert checkpoints_to_keep({}, 10) == set()


def test_a_folder_is_thinned(tmp_path: Path) -> None:
    for seq in range(1, 101):
        write(tmp_path, seq)
    expected = sorted(checkpoints_to_keep(dict.fromkeys(range(1, 101), 1), 10**9))
    thin_checkpoints(tmp_path, 10**9)
    assert list_seqs(tmp_path) == expected
    assert 10 < len(expected) < 40
    thin_checkpoints(tmp_path, 1)
    assert list_seqs(tmp_path) == [100]


def test_what_holds_a_forgotten_event_goes(tmp_path: Path) -> None:
    """Files that were folded after the forget stay, and those whose lineage never had the event."""
    for seq, epoch in ((1, 0), (5, 0), (6, 1), (9, 1), (12, 2)):
        write(tmp_path, seq, epoch=epoch)
    (tmp_path / "7").write_bytes(b"damaged")
    write(tmp_path, 8, epoch="none")
    assert read_fields(tmp_path / "9")["epoch"] == 1
    assert delete_states(tmp_path, 2, lambda seq: seq >= 5) == [5, 6, 7, 8, 9]
    assert list_seqs(tmp_path) == [1, 12]
