"""`softstep skip`: beside a running service, whose fold goes on without the event."""

from pathlib import Path

import pytest

from service.learn.replay import StreamReplay
from tests.support.data_directories import History, iris, learned, lines, ran, softstep
from tests.support.servers import serving


def test_a_running_service_goes_on_without_the_event(root: Path, tmp_path: Path) -> None:
    """What it serves is the fold of the others; a retry with the same id finds what was written."""
    with serving(root, tmp_path) as service:
        history = History(tmp_path / "data")
        learned(service, history.teach(*range(20)))
        argv = ("skip", "iris", 7, "--id", "ticket-1", "--data", tmp_path / "data", "--json")
        (told,) = lines(softstep(*argv))
        assert told == {"model": "iris", "version": "1", "id": "ticket-1", "seq": 21, "duplicate": False}
        metadata = learned(service, 21)
        assert lines(softstep(*argv)) == [{**told, "duplicate": True}]
        assert metadata["progressive"]["rows"] == 19
        replay = StreamReplay(history.stream, iris(), history.log)
        list(replay.fold_to(21))
        assert replay.fold.events == 19
        history.close()


def test_what_cannot_be_skipped_is_told(tmp_path: Path) -> None:
    """In a sentence, with exit code 1, and nothing is appended; ids are made where none is given."""
    history = History(tmp_path)
    history.teach(1, 2)
    history.add_class("new")
    for argv, sentence in (
        ((3,), "the seq to skip is not that of a feedback event"),
        ((9,), "the seq to skip is not that of a feedback event"),
        ((1, "--id", "2"), "the id was used for another event of this model; give this one an id of its own"),
        ((1, "--id", ""), "an id has 1 to 128 bytes"),
    ):
        done = ran("skip", "iris", *argv, "--data", tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"softstep: {sentence}\n")
    assert history.log.stream_state(history.stream.number).seq == 3
    assert ran("skip", "iris/1", 1, "--data", tmp_path).stdout == "iris/1: event 1 is skipped, by event 4\n"
    assert len(history.log.read_events(history.stream.number, 3, 1)[0].id) == 36
    history.close()


@pytest.mark.parametrize("argv", [["skip", "iris"], ["skip", "iris", "first"]])
def test_usage_is_told(argv: list[str]) -> None:
    """With exit code 2."""
    assert ran(*argv).returncode == 2
