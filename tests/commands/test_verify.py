"""`softstep verify`: intact directories pass, also beside a running service, and all damage is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service import command_line as command
from service.learn.publish import snapshot_contents
from service.learn.replay import StreamReplay
from service.store.directory.ack_marks import AckMarks
from service.store.log import tables
from service.store.log.events import SEQ_BITS, Position
from service.store.states.snapshots import read_snapshot, write_snapshot
from service.store.states.state_folder import list_seqs
from service.store.states.status import write_status
from tests.support.data_directories import History, iris_artifact, json_lines, run_softstep, wait_learned
from tests.support.running_service import serving


def test_a_running_service_is_intact(iris_models: Path, tmp_path: Path) -> None:
    """Its stream contains forgotten events, a rollback and added classes."""
    with serving(iris_models, tmp_path) as service:
        history = History(tmp_path / "data")
        wait_learned(service, history.add_feedback(*range(50)))
        history.add_class("new")
        history.add_feedback(*range(50, 80), classes=4)
        history.forget(3, 60)
        history.rollback(60)
        wait_learned(service, history.add_feedback(*range(90, 99), classes=4))
        result, marks = json_lines(run_softstep("verify", "--refold", "--data", tmp_path / "data", "--json"))
        history.close()
    assert (result["seq"], result["forgotten"], result["damage"], marks) == (92, 2, [], {"marks": "good"})
    assert result["snapshots"] + result["checkpoints"] >= result["refolded"] >= 1
    # The learner wrote a checkpoint when it stopped.
    done = run_softstep("verify", "--refold", "--data", tmp_path / "data")
    assert (done.returncode, done.stderr) == (0, "")
    stream, events, forgotten, checkpoints, snapshots, refolded, verdict = done.stdout.splitlines()[1].split()
    assert (stream, events, forgotten, verdict) == ("iris/1", "92", "2", "good")
    assert int(checkpoints) >= 1
    assert int(refolded) == int(checkpoints) + int(snapshots)


@pytest.fixture(scope="module")
def learned_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data directory with checkpoints and snapshots, as a learner leaves them."""
    path = tmp_path_factory.mktemp("whole")
    history = History(path)
    history.add_feedback(*range(30))
    history.add_class("new")
    seq = history.add_feedback(*range(40, 50), classes=4)
    replay = StreamReplay(history.stream, iris_artifact(), history.log)
    for at in (10, 31, seq):
        list(replay.fold_to(at))
        fields, arrays = replay.fold.checkpoint_contents()
        write_snapshot(history.folder.checkpoints, at, {**fields, **replay.position_fields()}, arrays, durable=True)
        write_snapshot(
            history.folder.snapshots, at, *snapshot_contents(replay.fold, replay.position_fields()), durable=False
        )
    marks = AckMarks(history.data.mark_file(0), {history.stream.number})
    marks.write_mark(history.stream.number, Position(*history.log.stream_state(history.stream.number)[:2]))
    marks.close()
    history.log.empty_wal()
    history.close()
    return path


def flip_bit(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def rewrite_fields(path: Path, **fields: object) -> None:
    """Write a file again with other fields and a valid checksum."""
    snapshot = read_snapshot(path)
    write_snapshot(path.parent, int(path.name), {**snapshot.fields, **fields}, snapshot.arrays, durable=False)


def change_numbers(history: History) -> None:
    """Write a checkpoint with the numbers of another state."""
    other = read_snapshot(history.folder.checkpoints / "31")
    path = history.folder.checkpoints / "41"
    write_snapshot(path.parent, 41, read_snapshot(path).fields, other.arrays, durable=False)


def change_window(history: History) -> None:
    """Write a checkpoint with confidences that no answer had."""
    path = history.folder.checkpoints / "41"
    checkpoint = read_snapshot(path)
    surer = {**checkpoint.arrays, "window": np.ones_like(checkpoint.arrays["window"])}
    write_snapshot(path.parent, 41, checkpoint.fields, surer, durable=False)


def lose_rows(history: History) -> None:
    """Remove the rows of an event that was not forgotten."""
    # Damage the database through the log's own connection; its public methods cannot.
    with history.log._connection.write_transaction() as database:
        tables.forget_payload(database, history.stream.number << SEQ_BITS | 7)


def mark_further(history: History) -> None:
    """Mark an event as acknowledged that the log does not have."""
    marks = AckMarks(history.data.mark_file(1), {history.stream.number})
    marks.write_mark(history.stream.number, Position(50, bytes(32)))
    marks.close()


def report_erased(history: History) -> None:
    """Write a status that says erased while files contain the event."""
    history.forget(5)
    write_status(history.folder.path, {"state": "following", "erased_epoch": 1})


DAMAGE: dict[str, tuple[Callable[[History], None], str]] = {
    "checkpoint": (lambda h: flip_bit(h.folder.checkpoints / "10"), "checkpoint 10: a snapshot is damaged"),
    "snapshot": (lambda h: flip_bit(h.folder.snapshots / "31"), "snapshot 31: a snapshot is damaged"),
    "tensors": (lambda h: flip_bit(h.folder.artifact / "model.safetensors"), "the bound artifact: model.safetensors"),
    "artifact": (lambda h: shutil.rmtree(h.folder.artifact), "the bound artifact: model.json is missing"),
    "other stream": (
        lambda h: rewrite_fields(h.folder.checkpoints / "10", genesis="00"),
        "10: it belongs to another stream",
    ),
    "other event": (
        lambda h: rewrite_fields(h.folder.snapshots / "10", hash="00"),
        "no event 10, or another one there",
    ),
    "no turns": (lambda h: rewrite_fields(h.folder.snapshots / "10", turns=None), "which admin events it knows"),
    "no event": (lambda h: shutil.copy(h.folder.snapshots / "41", h.folder.snapshots / "99"), "no event 99"),
    "state": (change_numbers, "checkpoint 41 differs from the fold of its events"),
    "window": (change_window, "checkpoint 41 differs from the fold of its events"),
    "claims": (
        lambda h: rewrite_fields(h.folder.snapshots / "41", classes=[]),
        "snapshot 41 differs from the fold of its events",
    ),
    "rows": (lose_rows, "an event has lost its rows though nothing forgot it"),
    "marks": (mark_further, "the feedback log ends before event 50"),
    "mark file": (lambda h: flip_bit(h.data.mark_file(0)), "the mark file 0 is damaged"),
    "erased": (report_erased, "checkpoint 10: it includes a forgotten event that is reported as erased"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(
    what: str, learned_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 1 and the error names the place."""
    shutil.copytree(learned_directory, tmp_path / "data")
    history = History(tmp_path / "data")
    damage, sentence = DAMAGE[what]
    damage(history)
    history.close()
    code = command.main(["verify", "--refold", "--data", str(tmp_path / "data")])
    result = capsys.readouterr()
    assert code == 1
    assert sentence in result.err


def test_an_intact_directory_passes(learned_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file's state equals the fold of its events."""
    assert command.main(["verify", "--refold", "--data", str(learned_directory), "--json"]) == 0
    assert '"checkpoints":3,"snapshots":3,"refolded":6' in capsys.readouterr().out


def test_files_to_be_erased_are_outdated_not_damaged(
    learned_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files with a forgotten or skipped event are outdated until the learner has deleted them."""
    shutil.copytree(learned_directory, tmp_path / "data")
    history = History(tmp_path / "data")
    history.forget(20)
    history.close()
    assert command.main(["verify", "--refold", "--data", str(tmp_path / "data"), "--json"]) == 0
    assert '"checkpoints":1,"snapshots":1,"refolded":2,"outdated":4,"damage":[]' in capsys.readouterr().out
    assert list_seqs(history.folder.checkpoints) == [10, 31, 41]


def test_a_damaged_database_is_reported(learned_directory: Path, tmp_path: Path) -> None:
    """The database file is checked before anything in it is used."""
    shutil.copytree(learned_directory, tmp_path / "data")
    flip_bit(tmp_path / "data" / "log.sqlite")
    assert run_softstep("verify", "--data", tmp_path / "data").returncode == 1
