"""Snapshots of a sparse model: a base, and the columns that have changed since."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import SnapshotError
from service.learn import publish as publish_module
from service.learn.follow import Follower
from service.learn.publish import Publisher, snapshot_contents
from service.softmax.sparse_model import SparseModel
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.hashing import hash_weights
from service.store.artifact.mapped_artifact import BASE
from service.store.artifact.model_factory import restore_parameters
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids
from service.store.log.events import Draft, Kind
from service.store.states import snapshots as snapshots_module
from service.store.states.bases import encode_first_base, list_bases
from service.store.states.served_state import as_whole
from service.store.states.snapshots import Snapshot, name_base, read_snapshot
from service.store.states.state_folder import list_seqs, read_latest
from tests.support.memory_log import MemoryLog
from tests.support.sparse_streams import N, few_columns, sparse_artifact, sparse_payload


class Rig:
    """A follower and a publisher of one sparse stream."""

    def __init__(self, path: Path, **fields: Any) -> None:
        self.artifact, self.log, self.folder = sparse_artifact(**fields), MemoryLog(), StreamFolder(path)
        self.stream = self.log.open_stream("m", 1, compute_genesis(self.artifact), 3)
        self.rng, self.ids = np.random.default_rng(0), 0
        self.first = name_base(encode_first_base(self.artifact)[0])
        self.start()

    def start(self) -> None:
        """Start as a learner that was restarted."""
        self.follower = Follower(self.stream, self.artifact, self.log, self.folder)
        self.publisher = Publisher(self.follower, 1 << 20)

    def add(self, kind: Kind, payload: bytes) -> None:
        """Append an event whose id is its number."""
        self.ids += 1
        self.log.append([Draft(self.stream.number, kind, b"%d" % self.ids, payload, 0)])

    def teach(self, events: int = 1, classes: int = 3) -> None:
        """Append feedback, and publish after each event."""
        for _ in range(events):
            self.add(Kind.FEEDBACK, sparse_payload(self.rng, classes=classes))
            self.publish()

    def publish(self) -> Snapshot:
        """Fold everything, publish, and return the newest snapshot, which serves what the fold serves."""
        while events := self.follower.read_next(9):
            self.follower.fold_batch(events)
        self.publisher.publish_snapshot(0.0, time.process_time)
        found = read_latest(self.folder.snapshots)
        assert found is not None
        seq, snapshot = found
        assert seq == self.follower.seq
        expected = self.follower.fold.state.served_parameters()
        assert hash_weights(self.restore(snapshot)) == hash_weights(expected)
        whole = as_whole(snapshot)
        fields, arrays = snapshot_contents(self.follower.fold, self.follower.position_fields())
        assert {name: whole.fields[name] for name in fields} == fields
        assert {name: array.tobytes() for name, array in whole.arrays.items()} == {
            name: array.tobytes() for name, array in arrays.items()
        }
        return snapshot

    def restore(self, snapshot: Snapshot) -> Any:
        """Return the parameters of a snapshot."""
        return restore_parameters(self.artifact.manifest, snapshot.arrays, snapshot.fields["clips"])

    @property
    def bases(self) -> set[str]:
        """The bases on disk, besides the first one, which stays."""
        assert self.first in list_bases(self.folder.bases)
        return list_bases(self.folder.bases) - {self.first}

    def named(self) -> set[str]:
        """Return the bases that snapshots name, besides the first one."""
        snapshots = [read_snapshot(self.folder.snapshots / str(seq)) for seq in list_seqs(self.folder.snapshots)]
        return {snapshot.fields[BASE] for snapshot in snapshots} - {self.first}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Return a rig whose model has no calibration."""
    return Rig(tmp_path)


def flip_bit(path: Path, at: float) -> None:
    """Flip a bit of a file, which may be mapped; `at` is its place as a share of the length."""
    content = path.read_bytes()
    place = min(int(at * len(content)), len(content) - 1)
    replace_file(path, content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])


def replace_file(path: Path, content: bytes) -> None:
    """Put another file in place of one, which may be mapped, and read as a process that has mapped none."""
    path.unlink()
    path.write_bytes(content)
    # Only another process has not mapped the base yet.
    snapshots_module._mapped_bases.clear()


@pytest.mark.parametrize("calibrated", [False, True])
def test_snapshots_serve_what_is_learned(tmp_path: Path, calibrated: bool) -> None:  # noqa: FBT001
    """Across new bases, classes, shadow mode, another rule, rollbacks and restarts; only named bases stay."""
    more = {"calibration": {"kind": "temperature", "learn": True, "temperature": 0.5}} if calibrated else {}
    rig = Rig(tmp_path, **more)
    rig.teach(12)
    rig.add(Kind.CLASSES, dump_classes(["d"]))
    rig.teach(3, classes=4)
    for switch in (True, False):
        rig.add(Kind.CONFIGURE, dump({"shadow": switch}))
        rig.teach(4, classes=4)
    rig.add(Kind.CONFIGURE, dump({"rule": "ftrl"}))
    rig.teach(2, classes=4)
    rig.add(Kind.ROLLBACK, dump({"seq": 9}))
    rig.teach(2)
    rig.follower.write_checkpoint()
    rig.start()
    rig.teach(5)
    assert rig.bases == rig.named()
    assert len(rig.bases) <= 3  # snapshots are kept


def test_a_base_is_shared_until_an_eighth_has_changed(rig: Rig) -> None:
    """Then there is another one; a snapshot has changes alone, and all of a base's users share one mapping."""
    rig.add(Kind.FEEDBACK, sparse_payload(rig.rng))
    first = rig.publish()
    touched = set(rig.follower.fold.state.tensors()["columns"].tolist())
    names = [first.fields[BASE]]
    mapped: list[Any] = [first]
    for _ in range(20):
        rig.add(Kind.FEEDBACK, sparse_payload(rig.rng))
        snapshot = rig.publish()
        if snapshot.fields[BASE] == names[-1]:
            assert snapshot.arrays[BASE] is mapped[-1].arrays[BASE]
            assert not snapshot.arrays[BASE].flags.writeable
            assert 0 < np.count_nonzero(snapshot.arrays["slots"]) <= N // 8 + 1
        names.append(snapshot.fields[BASE])
        mapped.append(snapshot)
    assert 2 < len(set(names)) < 20
    assert touched
    model = rig.restore(mapped[-1]).build_model()
    assert isinstance(model, SparseModel)
    assert np.shares_memory(model.weights.base, mapped[-1].arrays[BASE])


@pytest.mark.parametrize("part", ["base", "snapshot"])
def test_a_flipped_bit_is_refused(rig: Rig, part: str) -> None:
    """In either file; a start takes an older snapshot or none, and the learner writes both again."""
    rig.teach(4)
    path = rig.folder.snapshots / str(rig.follower.seq)
    for at in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        name = read_snapshot(path).fields[BASE]
        flip_bit(rig.folder.bases / name if part == "base" else path, at)
        with pytest.raises(SnapshotError):
            read_snapshot(path)
        found = read_latest(rig.folder.snapshots)
        assert found is None or found[0] < rig.follower.seq
        assert part == "snapshot" or found is None or found[1].fields[BASE] != name
        rig.start()
        rig.publish()
    rig.teach(2)


def test_a_missing_or_exchanged_base_is_refused(rig: Rig) -> None:
    """Also one that is valid by itself, under the name of another."""
    rig.teach(30)
    path = rig.folder.snapshots / str(rig.follower.seq)
    base = rig.folder.bases / read_snapshot(path).fields[BASE]
    content = base.read_bytes()
    other = Rig(rig.folder.path / "other", seed=1)
    other.teach(1)
    name = other.first
    replace_file(base, (other.folder.bases / name).read_bytes())
    with pytest.raises(SnapshotError):
        read_snapshot(path)
    base.unlink()
    with pytest.raises(SnapshotError):
        read_snapshot(path)
    base.write_bytes(content)
    assert read_snapshot(path).fields[BASE] == base.name


def test_a_crash_or_a_full_disk_between_base_and_changes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older snapshot is served, the next one names the base, and a base that none names is deleted."""
    rig.teach(2)
    before = rig.bases

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    for _ in range(2):
        rig.start()  # it has no base yet
        rig.add(Kind.FEEDBACK, sparse_payload(rig.rng))
        with monkeypatch.context() as patched:
            patched.setattr(publish_module, "write_snapshot", fail)
            with pytest.raises(OSError, match="full"):
                rig.publish()
        assert len(rig.bases) > len(before)
        found = read_latest(rig.folder.snapshots)
        assert found is not None
        assert found[0] < rig.follower.seq
        assert found[1].fields[BASE] in before
        rig.publish()
        before = rig.bases
    rig.teach(3)
    assert rig.bases == rig.named()


def test_forgetting_deletes_the_bases_that_hold_the_event(rig: Rig) -> None:
    """Before it is reported as erased: no base is left whose state had it."""
    rig.teach(1)
    rows = few_columns(rig.rng, 1)
    assert rows.n_rows == 1
    rig.teach(20)
    held = rig.bases
    assert held
    rig.add(Kind.FORGET, dump_forget_ids([b"1"]))
    rig.publish()
    assert rig.publisher.needs_erasure
    rig.publisher.erase_forgotten()
    assert not rig.bases & held
    (seq,) = list_seqs(rig.folder.snapshots)
    assert seq == rig.follower.seq
    assert rig.bases == rig.named() != set()


def test_the_pause_is_short_while_no_event_waits(rig: Rig) -> None:
    """A snapshot that took a second of processor time is followed by one after 3 s, or 25 s if events wait."""

    def fold() -> None:
        rig.add(Kind.FEEDBACK, sparse_payload(rig.rng))
        rig.follower.fold_batch(rig.follower.read_next(9))

    for is_behind, pause in ((True, 25.0), (False, 3.0)):
        fold()
        seconds = iter((5.0, 6.0))
        rig.publisher.publish_snapshot(100.0, seconds.__next__, is_behind=is_behind)
        fold()
        assert not rig.publisher.is_due(99.99 + pause)
        assert rig.publisher.is_due(100.0 + pause)


def test_the_first_base_stays(rig: Rig) -> None:
    """Also for a learner that starts in shadow mode, and it is written again once it is missing."""
    rig.teach(2)
    rig.add(Kind.CONFIGURE, dump({"shadow": True}))
    rig.teach(1)
    rig.start()
    rig.teach(2)
    assert rig.bases == rig.named() != set()
    (rig.folder.bases / rig.first).unlink()
    for _ in range(2):
        rig.teach(1)
    assert rig.first in list_bases(rig.folder.bases)
