"""A release with another fold takes a stream over, without a jump in what is served and without losing an event.

The data directory was written by a release whose fold had version 1 (make_fold1.py); the one that opens it has version
2, or 3 after that.
"""

import binascii
import os
import shutil
import signal
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest

from service.errors import ArtifactError, EarlierReleaseError, LogDamagedError
from service.learn.event_fold import EventFold
from service.learn.fold_upgrade import current_fold_version, first_fold, take_over
from service.learn.follow import Follower
from service.process.shared_memory import SharedMemory
from service.process.wakeup import Wakeup
from service.softmax.parameters import LinearParameters
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.hashing import hash_tensors
from service.store.log.admin_payloads import dump, parse
from service.store.log.events import Draft, Event, Kind
from service.store.log.feedback_log import read_lineage
from service.store.log.lineage import Lineage
from service.store.states.snapshots import read_fields, read_snapshot
from service.store.states.state_folder import list_seqs
from tests.support.data_directories import History, iris_artifact, run_command
from tests.support.history_machine import contents_hash, restore_fold_version, set_fold_version
from tests.support.learner_processes import fork_learner
from tests.support.make_fold1 import GOLDEN
from tests.support.waiting import wait_until

EXPECTED = orjson.loads((GOLDEN / "expected.json").read_bytes())
LAST = 35


@pytest.fixture(autouse=True)
def release() -> Iterator[None]:
    """Run the release with fold 2 during the test."""
    set_fold_version(2)
    yield
    restore_fold_version()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Copy the old release's data directory."""
    with tarfile.open(GOLDEN / "data.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "data"


@contextmanager
def learning(path: Path) -> Iterator[History]:
    """Run a learner of this release; yield the stream that it follows."""
    process = fork_learner(path, SharedMemory(1, 4), Wakeup())
    history = History.open(path)
    try:
        yield history
    finally:
        history.close()
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)


def wait_fields(history: History, seq: int) -> dict[str, Any]:
    """Wait for the snapshot of a seq and return its fields."""
    path = history.folder.snapshots / str(seq)
    wait_until(path.exists)
    return dict(read_fields(path))


def served_hash(fold: EventFold) -> str:
    """Return the hash of the served weights."""
    return hash_tensors(fold.state.served_parameters().tensors())


def last_base(history: History) -> Event:
    """Return the last BASE event."""
    return [event for event in history.log.read_admin_events(history.stream.number) if event.kind == Kind.BASE][-1]


def take_over_stream(history: History) -> int | None:
    """Take the stream over as a learner does at its start."""
    return take_over(history.stream, iris_artifact(), history.log, history.folder.checkpoints, 0)


def test_the_old_release_gets_its_own_bits(path: Path) -> None:
    """The old fold still makes the weights that the old release wrote."""
    set_fold_version(1)
    history = History.open(path)
    assert history.stream.genesis.hex() == EXPECTED["genesis"] == compute_genesis(iris_artifact(), 1).hex()
    assert served_hash(history.replay(30)) == EXPECTED["weights_sha256"]
    assert take_over_stream(history) is None
    follower = Follower(history.stream, iris_artifact(), history.log, history.folder)
    # Its checkpoint has no window of recent rows, so it is rejected and the same bits are folded again.
    while follower.is_refolding:
        follower.fold_batch(follower.read_next(7))
    assert contents_hash(follower.fold) == contents_hash(history.replay(30))
    history.close()
    assert run_command("verify", "--data", path).returncode == 0


def test_this_release_continues_a_stream_of_fold_1(path: Path) -> None:
    """No state is lost: there is no base, and new events are folded as the old release folded them."""
    restore_fold_version()
    with learning(path) as history:
        last = history.add_feedback("new", classes=4)
        served = wait_fields(history, last)["weights_sha256"]
    assert run_command("verify", "--data", path).returncode == 0
    history = History.open(path)
    assert last == LAST + 1
    assert served_hash(history.replay(30)) == EXPECTED["weights_sha256"]
    assert history.replay(last).checkpoint_contents()[0]["scalars"]["fold_version"] == 1
    assert served == served_hash(history.replay(last))
    set_fold_version(1)
    assert served == served_hash(history.replay(last))
    history.close()


def test_a_new_fold_continues_from_the_served_state(path: Path) -> None:
    """It starts from the bits of the old checkpoint, and any number of starts makes one base."""
    for _ in range(2):
        with learning(path) as history:
            fields = wait_fields(history, LAST + 1)
            assert history.log.stream_state(history.stream.number)[::2] == (LAST + 1, 21, 0)
            assert fields["weights_sha256"] == served_hash(history.replay(LAST + 1))
            assert fields["classes"] == EXPECTED["classes"]
            lineage = read_lineage(history.log, history.stream.number)
            base = lineage.base_of_state(LAST + 1)
            assert base is not None
            assert (base.seq, base.target, base.fold, base.known_changes) == (LAST + 1, 30, 2, 1)
            old = first_fold(history.stream, iris_artifact(), history.log, lineage, base)
            assert served_hash(old) == EXPECTED["weights_sha256"]
            assert served_hash(old) != fields["weights_sha256"]
    history = History.open(path)
    follower = Follower(history.stream, iris_artifact(), history.log, history.folder)
    assert (follower.seq, follower.is_refolding) == (LAST + 1, False)
    assert contents_hash(follower.fold) == contents_hash(history.replay(LAST + 1))
    history.close()
    with learning(path) as history:
        last = history.add_feedback("new", classes=4)
        assert wait_fields(history, last)["weights_sha256"] == served_hash(history.replay(last))
    assert run_command("verify", "--refold", "--data", path).returncode == 0
    history = History.open(path)
    for folder in (history.folder.checkpoints, history.folder.snapshots):
        shutil.rmtree(folder)
    follower = Follower(history.stream, iris_artifact(), history.log, history.folder)
    while events := follower.read_next(7):
        follower.fold_batch(events)
    assert contents_hash(follower.fold) == contents_hash(history.replay(last))
    history.close()


def test_states_of_the_old_fold_cannot_be_recomputed(path: Path) -> None:
    """Replay says so before and after the takeover; state 0 is always available."""
    done = run_command("replay", "iris", "--data", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "an earlier release made that state" in done.stderr
    assert run_command("verify", "--refold", "--data", path).returncode == 0
    history = History.open(path)
    assert take_over_stream(history) == 30
    for seq in (1, 30, LAST):
        with pytest.raises(EarlierReleaseError, match=f"seq {LAST + 1} "):
            history.replay(seq)
    assert contents_hash(history.replay(0)) == contents_hash(EventFold(iris_artifact()))
    with pytest.raises(AssertionError, match="EarlierReleaseError"):
        history.rollback(30)
    assert history.rollback(0) == LAST + 2
    assert history.add_feedback("again") == LAST + 3
    fold = EventFold(iris_artifact())
    fold.fold_events(history.log.read_events(history.stream.number, LAST + 2, 1))
    assert contents_hash(history.replay(LAST + 3)) == contents_hash(fold)
    history.close()
    assert run_command("replay", "iris", "--seq", "30", "--data", path).returncode == 1
    assert run_command("replay", "iris", "--data", path).returncode == 0


def test_an_event_of_the_old_fold_is_forgotten_exactly(path: Path) -> None:
    """The base's state is erased too, and all other events are folded again from the artifact."""
    with learning(path) as history:
        wait_fields(history, LAST + 1)
        (event,) = history.log.read_events(history.stream.number, 6, 1)
        base = last_base(history)
        needles = [event.payload or b"", base.payload or b"", *base_tensors(base)]
        assert all(any(needle in file.read_bytes() for file in files(path)) for needle in needles)
        last = history.forget(event.id.decode())
        fields = wait_fields(history, last)
        fold = EventFold(iris_artifact())
        fold.fold_events(one for one in history.log.read_events(history.stream.number, 0, LAST) if one.seq != event.seq)
        assert fields["weights_sha256"] == served_hash(fold) == served_hash(history.replay(last))
        assert fields["progressive"]["events"] == LAST - 2
        status = history.folder.path / "status"
        wait_until(lambda: orjson.loads(status.read_bytes())["erased_epoch"] == 1)
    assert [file for file in files(path) for needle in needles if needle in file.read_bytes()] == []
    assert run_command("verify", "--refold", "--data", path).returncode == 0
    history = History.open(path)
    assert take_over_stream(history) is None
    history.close()


def files(path: Path) -> list[Path]:
    """Return every file of a data directory."""
    return [file for file in path.rglob("*") if file.is_file()]


def base_tensors(base: Event) -> list[bytes]:
    """Return the bytes of the base's tensors that feedback has changed: bias and delta."""
    state: Any = parse(base.payload or b"")["state"]
    assert set(state["tensors"]) == {"weight", "bias", "delta.weight"}
    return [binascii.a2b_base64(state["tensors"][name][2]) for name in ("bias", "delta.weight")]


def test_an_event_after_the_base_is_forgotten_as_usual(path: Path) -> None:
    """The base does not contain it and stays."""
    history = History.open(path)
    assert take_over_stream(history) == 30
    last = history.forget("33")
    assert last_base(history).payload is not None
    fold = history.replay(last)
    assert fold.events == 4
    history.close()


def test_a_backup_after_a_takeover_is_complete(path: Path, tmp_path: Path) -> None:
    """The old state is in the log; a restore gives the same bits, also from before the takeover."""
    history = History.open(path)
    assert run_command("backup", tmp_path / "before", "--data", path).returncode == 0
    assert take_over_stream(history) == 30
    expected = contents_hash(history.replay(LAST + 1))
    assert run_command("backup", tmp_path / "after", "--data", path).returncode == 0
    history.forget("7")
    history.close()
    for name in ("before", "after"):
        assert run_command("verify", "--data", tmp_path / name).returncode == 0
    copy = History.open(tmp_path / "before")
    assert take_over_stream(copy) == 30
    assert contents_hash(copy.replay(LAST + 1)) == expected
    copy.close()
    done = run_command("restore", tmp_path / "after", "--over", "--data", path)
    assert (done.returncode, done.stderr) == (0, "")
    history = History.open(path)
    assert last_base(history).payload is None
    assert history.replay(history.log.stream_state(history.stream.number).seq).events == LAST - 2
    history.close()


def test_without_a_checkpoint_all_events_are_folded_again(path: Path) -> None:
    """Only the old fold's bits are lost."""
    history = History.open(path)
    shutil.rmtree(history.folder.checkpoints)
    assert take_over_stream(history) == 0
    fold = EventFold(iris_artifact())
    fold.fold_events(history.log.read_events(history.stream.number, 0, LAST))
    assert contents_hash(history.replay(LAST + 1)) == contents_hash(fold)
    history.close()


@pytest.mark.parametrize("change", ["rollback", "forget", "skip", "two folds"])
def test_a_checkpoint_off_the_lineage_is_no_base(path: Path, change: str) -> None:
    """The old release had not applied a change of the lineage, or had not written the checkpoint itself."""
    history = History.open(path)
    if change == "rollback":
        history.rollback(7)
    elif change == "forget":
        history.forget("7")
    elif change == "skip":
        history.append([history.draft(Kind.SKIP, "skip", dump({"seq": 7}))])
    else:
        take_over_stream(history)
        set_fold_version(3)
    assert take_over_stream(history) == 0
    last = history.log.stream_state(history.stream.number).seq
    fold = EventFold(iris_artifact())
    for seq in read_lineage(history.log, history.stream.number).seqs(last):
        fold.fold_events(history.log.read_events(history.stream.number, seq - 1, 1))
    assert contents_hash(history.replay(last)) == contents_hash(fold)
    history.close()


def test_a_third_fold_continues_from_the_second(path: Path) -> None:
    """If the newest base is forgotten, the older one is used."""
    history = History.open(path)
    assert take_over_stream(history) == 30
    follower = Follower(history.stream, iris_artifact(), history.log, history.folder)
    last = history.add_feedback("a", "b", classes=4)
    while events := follower.read_next(9):
        follower.fold_batch(events)
    follower.write_checkpoint()
    second = served_hash(follower.fold)
    set_fold_version(3)
    assert take_over_stream(history) == last
    assert served_hash(history.replay(last + 1)) == second
    assert history.forget("b") == last + 2
    follower = Follower(history.stream, iris_artifact(), history.log, history.folder)
    while events := follower.read_next(9):
        follower.fold_batch(events)
    assert contents_hash(follower.fold) == contents_hash(history.replay(last + 2))
    assert follower.fold.events == 6
    history.close()


def test_an_older_release_rejects_a_stream_that_was_taken_over(path: Path) -> None:
    """It appends nothing."""
    history = History.open(path)
    take_over_stream(history)
    set_fold_version(1)
    with pytest.raises(ArtifactError, match="a later release has taken over"):
        take_over_stream(history)
    stream = history.stream._replace(genesis=compute_genesis(iris_artifact(), 2))
    with pytest.raises(ArtifactError, match="by a later release"):
        current_fold_version(stream, iris_artifact(), Lineage())
    assert history.log.stream_state(history.stream.number).seq == LAST + 1
    history.close()


def test_pause_and_shadow_mode_survive_a_takeover(path: Path) -> None:
    """The same parameters are served, and the same candidate continues to learn."""
    set_fold_version(1)
    history = History.open(path)
    draft = history.draft(Kind.CONFIGURE, "shadow", dump({"shadow": True}))
    history.append([draft])
    history.add_feedback("in shadow", classes=4)
    history.append([history.draft(Kind.CONFIGURE, "pause", dump({"paused": True}))])
    follower = Follower(history.stream, iris_artifact(), history.log, history.folder)
    while events := follower.read_next(9):
        follower.fold_batch(events)
    follower.write_checkpoint()
    state = follower.fold.state
    set_fold_version(2)
    assert take_over_stream(history) == follower.seq
    other = history.replay(follower.seq + 1).state
    assert (other.paused, other.shadow) == (True, True)
    for old, new in (
        (state.served_parameters(), other.served_parameters()),
        (state.candidate_parameters(), other.candidate_parameters()),
    ):
        assert has_same_parameters(old, new)
    assert not has_same_parameters(state.served_parameters(), state.candidate_parameters())
    history.close()


def has_same_parameters(one: LinearParameters, other: LinearParameters) -> bool:
    """Return whether two have the same bits."""
    return one.clips() == other.clips() and all(
        array.tobytes() == other.arrays()[name].tobytes() for name, array in one.arrays().items()
    )


@pytest.mark.parametrize("field", ["manifest", "tensors", "paused", "frozen"])
def test_an_incomplete_base_is_rejected(path: Path, field: str) -> None:
    """The error is an ArtifactError."""
    history = History.open(path)
    take_over_stream(history)
    fields = parse(last_base(history).payload or b"")
    state: Any = fields["state"]
    del state[field]
    set_fold_version(3)
    id_ = b"\xffbase 1 3"
    history.append([Draft(history.stream.number, Kind.BASE, id_, dump(fields), 0)])
    with pytest.raises(ArtifactError, match="cannot start from the state of the base"):
        history.replay(LAST + 2)
    history.close()


def test_a_damaged_base_is_rejected(path: Path) -> None:
    """The damage lies where a start does not verify the chain."""
    history = History.open(path)
    take_over_stream(history)
    history.close()
    with closing(apsw.Connection(str(path / "log.sqlite"))) as damage:
        sql = "UPDATE events SET payload = CAST(replace(payload, '\"paused\":false', '\"paused\":true ') AS BLOB)"
        damage.execute(f"{sql} WHERE kind = ?", (int(Kind.BASE),))
    history = History.open(path)
    (base,) = history.log.read_events(history.stream.number, LAST, 1)
    assert b'"paused":true ' in (base.payload or b"")
    with pytest.raises(LogDamagedError):
        history.replay(LAST + 1)
    history.close()


def test_old_files_are_not_rewritten(path: Path) -> None:
    """No snapshot is published again under a seq of the old release."""
    before = read_snapshot(path / "streams" / "iris" / "1" / "snapshots" / "30").fields
    with learning(path) as history:
        wait_fields(history, LAST + 1)
        assert read_fields(history.folder.snapshots / "30") == before
        assert list_seqs(history.folder.snapshots) == [30, LAST + 1]
