"""Every command that reads or writes a log knows corrections."""

from pathlib import Path

import pytest

from service.learn.replay import StreamReplay
from service.store.log.correction_payload import correct_payload
from service.store.log.events import Kind
from service.store.states.snapshots import write_snapshot
from tests.support.data_directories import History, iris_artifact, json_lines, row_payload, run_command

CORRECTED = 7
LABEL = 1


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A stream of 20 events, a correction, and 5 events, with a checkpoint before the correction and one after it."""
    history = History(tmp_path / "data")
    history.add_feedback(*range(20))
    history.correct(CORRECTED, LABEL)
    history.add_feedback(*range(30, 35))
    states = StreamReplay(history.stream, iris_artifact(), history.log)
    for seq in (15, 26):
        list(states.fold_to(seq))
        fields, arrays = states.fold.checkpoint_contents()
        write_snapshot(history.folder.checkpoints, seq, fields | states.position_fields(), arrays, durable=True)
    return history


def weights_at(folder: Path, seq: int) -> str:
    """Return the hash of the weights that `softstep replay` makes of a seq."""
    (result,) = json_lines(run_command("replay", "iris", "--seq", seq, "--json", "--data", folder))
    return str(result["weights_sha256"])


def test_a_replay_has_the_labels_of_its_seq(history: History, tmp_path: Path) -> None:
    """From the correction on it equals a stream in which the event was posted with the new label, and not before."""
    right = History(tmp_path / "right")
    (event, correction) = (history.log.read_events(1, seq - 1, 1)[0].payload or b"" for seq in (CORRECTED, 21))
    for number in (*range(20), *range(30, 35)):
        payload = row_payload(int.from_bytes(str(number).encode()[:8]))
        if payload == event:
            payload = correct_payload(payload, correction)
        right.append([right.draft(Kind.FEEDBACK, str(number), payload)])
    assert [weights_at(tmp_path / "data", seq) for seq in (6, 21, 26)] == [
        weights_at(tmp_path / "right", seq) for seq in (6, 20, 25)
    ]
    assert weights_at(tmp_path / "data", 20) != weights_at(tmp_path / "right", 20)
    (exported,) = json_lines(run_command("export", "iris", tmp_path / "out", "--data", tmp_path / "data", "--json"))
    assert exported["seq"] == 26
    for each in (history, right):
        each.close()


def test_checkpoints_before_and_after_a_correction_are_good(history: History, tmp_path: Path) -> None:
    """Each holds the labels of its seq, and neither is outdated."""
    (result, _) = json_lines(run_command("verify", "--refold", "--json", "--data", tmp_path / "data"))
    assert (result["refolded"], result["outdated"], result["damage"]) == (2, 0, [])
    history.close()


def test_a_restore_forgets_corrections_again(history: History, tmp_path: Path) -> None:
    """A backup has the label of an event that was forgotten since; the restored log has neither row nor label."""
    data = ("--data", tmp_path / "data")
    assert run_command("backup", tmp_path / "backup", *data).returncode == 0
    history.forget(CORRECTED - 1)  # the ids of these events are from 0
    history.close()
    (restored,) = json_lines(run_command("restore", tmp_path / "backup", *data, "--over", "--json"))
    assert restored == {"finished": True, "forgotten_again": 1}
    again = History.open(tmp_path / "data")
    events = again.log.read_events(again.stream.number, 0, 99)
    assert [event.seq for event in events if event.payload is None] == [CORRECTED, 21]
    assert run_command("verify", "--refold", *data).returncode == 0
    again.close()


def test_a_corrected_event_is_skipped(history: History, tmp_path: Path) -> None:
    """The state is made of neither its old nor its new label; a purge removes everything."""
    data = ("--data", tmp_path / "data")
    assert run_command("skip", "iris", CORRECTED, *data).returncode == 0
    assert history.replay(27).events == 24
    assert run_command("verify", "--refold", *data).returncode == 0
    history.close()
    assert run_command("purge", "iris/1", "--yes", *data).returncode == 0
