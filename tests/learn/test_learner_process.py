"""The learner's process: a fault of one stream does not delay the others, and nothing is lost."""

from pathlib import Path

import pytest

from service.learn.replay import StreamReplay
from service.store.artifact.hashing import hash_tensors
from service.store.log.admin_payloads import dump_classes, dump_seq
from service.store.log.events import Kind
from service.store.states.snapshots import read_fields
from service.store.states.status import read_status
from tests.support.data_directories import History, iris_artifact
from tests.support.learner_processes import kill_at, kill_at_label, learning, make_streams, raise_at
from tests.support.waiting import wait_until


def wait_published(history: History, seq: int, seconds: float = 30) -> None:
    """Wait until the state at a seq is published."""
    wait_until(lambda: history.published_seq() == seq, seconds)


def wait_state(history: History, state: str) -> None:
    """Wait until the status of a stream has a state."""
    wait_until(lambda: history.status().get("state") == state)


def assert_published_is_the_fold(history: History) -> None:
    """Compare the snapshot at the last seq with a replay of the log."""
    replay = StreamReplay(history.stream, iris_artifact(), history.log)
    list(replay.fold_to(replay.last))
    fields = read_fields(history.folder.snapshots / str(replay.last))
    assert fields["progressive"]["events"] == replay.fold.events
    assert fields["hash"] == replay.position.hash.hex()
    assert fields["weights_sha256"] == hash_tensors(replay.fold.state.served_parameters().tensors())


def test_a_new_stream_is_learned_while_another_is_busy(tmp_path: Path) -> None:
    """Its first event comes with events of another stream, which keep the learner busy."""
    with learning(tmp_path, 1) as (known,):
        known.add_feedback("a")
        wait_published(known, 1)
        streams = []
        for version in range(2, 8):
            new = History(tmp_path, version)
            known.add_feedback(f"with {version}")
            new.add_feedback(f"first {version}")
            streams.append(new)
        for new in streams:
            wait_published(new, 1)
            new.close()


@pytest.mark.parametrize("has_events", [True, False])
def test_a_disk_error_of_one_stream_delays_no_other(tmp_path: Path, *, has_events: bool) -> None:
    """The status names the error without a path; once the disk works the stream continues and nothing is lost."""
    make_streams(tmp_path, 2)
    folder = tmp_path / "streams" / "iris" / "1" / "snapshots"
    if not has_events:
        folder.write_bytes(b"a file in the place of a folder")
    with learning(tmp_path, 2) as (bad, good):
        if has_events:
            bad.add_feedback("first")
            wait_published(bad, 1)
            folder.rename(tmp_path / "aside")
            folder.write_bytes(b"a file in the place of a folder")
        for number in range(5):
            bad.add_feedback(f"bad {number}")
            # The other stream is published while this one is tried again.
            wait_published(good, good.add_feedback(f"good {number}"), 2)
        wait_state(bad, "held")
        assert bad.status()["reason"].startswith("disk error: ")
        assert str(tmp_path) not in bad.status()["reason"]
        assert good.status()["state"] == "following"
        assert_published_is_the_fold(good)
        folder.unlink()
        wait_published(bad, bad.log.stream_state(bad.stream.number).seq)
        wait_state(bad, "following")
        assert_published_is_the_fold(bad)


def test_a_damaged_artifact_delays_no_other_stream(tmp_path: Path) -> None:
    """Once the artifact is mended the learner continues without a restart."""
    make_streams(tmp_path, 2)
    folder = tmp_path / "streams" / "iris" / "2"
    manifest = folder / "artifact" / "model.json"
    content = manifest.read_bytes()
    manifest.write_bytes(content[:-9])
    with learning(tmp_path, 1) as (good,):
        for number in range(3):
            wait_published(good, good.add_feedback(number), 2)
        wait_until(lambda: read_status(folder).get("state") == "held")
        assert str(tmp_path) not in read_status(folder)["reason"]
        manifest.write_bytes(content)
        wait_until(lambda: read_status(folder)["state"] == "following")


def test_an_event_that_crashes_the_learner_stalls_only_its_stream(tmp_path: Path) -> None:
    """Two streams have one such event each while a third is learned; each continues once its event is skipped."""
    with learning(tmp_path, 3, kill_at("deadly 1", "deadly 2")) as (first, second, healthy):
        first.add_feedback(*range(30), "deadly 1", *range(31, 40))
        second.add_feedback("a", "deadly 2", "b")
        for number in range(40):
            healthy.add_feedback(f"healthy {number}")
        wait_state(first, "stalled")
        wait_state(second, "stalled")
        assert (first.status()["seq"], second.status()["seq"]) == (31, 2)
        wait_published(healthy, healthy.add_feedback("later"))
        assert_published_is_the_fold(healthy)
        for history, seq in ((first, 31), (second, 2)):
            wait_published(history, history.append([history.draft(Kind.SKIP, f"skip {seq}", dump_seq(seq))]))
            wait_state(history, "following")
            assert_published_is_the_fold(history)


def test_an_event_that_raises_stalls_only_its_stream(tmp_path: Path) -> None:
    """The events before it in its batch are folded once, however often the batch is tried."""
    with learning(tmp_path, 2, raise_at("bad")) as (broken, healthy):
        broken.add_feedback(*range(20), "bad", *range(21, 30))
        wait_state(broken, "stalled")
        assert broken.status()["seq"] == 21
        wait_published(healthy, healthy.add_feedback("healthy"))
        wait_published(broken, broken.append([broken.draft(Kind.SKIP, "skip", dump_seq(21))]))
        assert_published_is_the_fold(broken)


@pytest.mark.parametrize("by_rollback", [True, False])
def test_labels_that_crash_the_learner_stall_its_stream(tmp_path: Path, *, by_rollback: bool) -> None:
    """The stream continues after a rollback to before the correction, or with other labels of the same event."""
    with learning(tmp_path, 1, kill_at_label("5", 2)) as (history,):
        good = history.add_feedback(*range(20))
        history.correct(6, 0)
        history.correct(6, 2)
        wait_state(history, "stalled")
        assert history.status()["seq"] == 6
        wait_published(history, history.rollback(good) if by_rollback else history.correct(6, 1))
        wait_state(history, "following")
        assert_published_is_the_fold(history)
        wait_published(history, history.add_feedback("on"))
        assert_published_is_the_fold(history)


def test_a_rollback_leads_past_an_admin_event_that_crashes_the_learner(tmp_path: Path) -> None:
    """An admin event cannot be skipped; after a rollback to before it the stream continues as usual."""
    with learning(tmp_path, 1, kill_at("deadly")) as (history,):
        good = history.add_feedback(*range(20))
        history.append([history.draft(Kind.CLASSES, "deadly", dump_classes(["another"]))])
        history.add_feedback("late", classes=4)
        wait_state(history, "stalled")
        assert history.status()["seq"] == good + 1
        # The state of this rollback contains the event too, so it is no way past.
        history.append([history.draft(Kind.ROLLBACK, "too late", dump_seq(good + 1))])
        wait_published(history, history.append([history.draft(Kind.ROLLBACK, "back", dump_seq(good))]))
        wait_state(history, "following")
        assert_published_is_the_fold(history)
        wait_published(history, history.add_feedback("on", "and on"))
        assert_published_is_the_fold(history)
