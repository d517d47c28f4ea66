"""`softstep skip`: the fold of a running service leaves the event out."""

from pathlib import Path

import pytest

from service.learn.replay import StreamReplay
from tests.support.data_directories import History, iris_artifact, json_lines, run_command, run_softstep, wait_learned
from tests.support.running_service import serving


def test_a_running_service_continues_without_the_event(iris_models: Path, tmp_path: Path) -> None:
    """It serves the fold of the other events; a retry with the same id finds the SKIP event."""
    with serving(iris_models, tmp_path) as service:
        history = History(tmp_path / "data")
        wait_learned(service, history.add_feedback(*range(20)))
        argv = ("skip", "iris", 7, "--id", "ticket-1", "--data", tmp_path / "data", "--json")
        (result,) = json_lines(run_softstep(*argv))
        assert result == {"model": "iris", "version": "1", "id": "ticket-1", "seq": 21, "duplicate": False}
        metadata = wait_learned(service, 21)
        assert json_lines(run_softstep(*argv)) == [{**result, "duplicate": True}]
        (line,) = (tmp_path / "data" / "audit.jsonl").read_text().splitlines()
        assert '"action":"skip","object":"iris/1","outcome":"done","seq":7}' in line
        assert metadata["progressive"]["rows"] == 19
        replay = StreamReplay(history.stream, iris_artifact(), history.log)
        list(replay.fold_to(21))
        assert replay.fold.events == 19
        history.close()


def test_invalid_skips_are_reported(tmp_path: Path) -> None:
    """The error is one sentence with exit code 1, and nothing is appended."""
    history = History(tmp_path)
    history.add_feedback(1, 2)
    history.add_class("new")
    for argv, sentence in (
        ((3,), "the seq to skip is not that of a feedback event"),
        ((9,), "the seq to skip is not that of a feedback event"),
        ((1, "--id", "2"), "the id was used for another event of this model; give this one an id of its own"),
        ((1, "--id", ""), "an id has 1 to 128 bytes"),
    ):
        done = run_command("skip", "iris", *argv, "--data", tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"softstep: {sentence}\n")
    assert history.log.stream_state(history.stream.number).seq == 3
    assert run_command("skip", "iris/1", 1, "--data", tmp_path).stdout == "iris/1: event 1 is skipped, by event 4\n"
    assert len(history.log.read_events(history.stream.number, 3, 1)[0].id) == 36
    history.close()


@pytest.mark.parametrize("argv", [["skip", "iris"], ["skip", "iris", "first"]])
def test_invalid_usage_is_reported(argv: list[str]) -> None:
    """The exit code is 2."""
    assert run_command(*argv).returncode == 2
