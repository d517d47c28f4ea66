"""The history of a stream survives crashes, and forgets with the log: a replay makes it again, to the bit."""

from pathlib import Path

from service.learn.history_replay import HistoryReplay
from service.store.log.admin_payloads import dump
from service.store.log.events import Kind
from service.store.states.report import Report, read_report
from tests.support.data_directories import History, iris_artifact, wait_learned
from tests.support.processes import children, kill
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until


def report_at(folder: Path, seq: int) -> Report:
    """Wait for the report of the events up to a seq."""

    def is_there() -> bool:
        report = read_report(folder / "streams" / "iris" / "1" / "report")
        return report is not None and report.seq == seq

    wait_until(is_there)
    report = read_report(folder / "streams" / "iris" / "1" / "report")
    assert report is not None
    return report


def replayed(history: History) -> str:
    """Return the hash of the history that a replay makes."""
    replay = HistoryReplay(history.stream, iris_artifact(), history.log)
    list(replay.fold_history(0))
    assert replay.history is not None
    return replay.history.sha256()


def test_a_killed_learner_makes_the_same_history(iris_models: Path, tmp_path: Path) -> None:
    """After kill -9 of the learner between events, a rollback and a new class, the report equals that of a replay."""
    with serving(iris_models, tmp_path) as service:
        data, history = tmp_path / "data", History(tmp_path / "data")
        for first in (0, 40, 80):
            wait_learned(service, history.add_feedback(*range(first, first + 30)))
            kill_learner(service)
        wait_learned(service, history.rollback(50))
        kill_learner(service)
        wait_learned(service, last := history.add_feedback(*range(120, 130)))
        report = report_at(data, last)
        assert replayed(history) == report.history_sha256
        assert report.history[:, 0].sum() == 100
        history.close()


def kill_learner(service: Service) -> None:
    """Kill the learner; the service starts another."""
    (learner,) = (
        process for process in children(service.process.pid)
        if Path(f"/proc/{process}/comm").read_text() == "softstep-learn\n"
    )  # fmt: skip
    kill(learner)


def test_a_forgotten_event_leaves_no_trace(iris_models: Path, tmp_path: Path) -> None:
    """The history is that of a stream which had events without rows in the place of the event and of the FORGET."""
    other = History(tmp_path / "other")
    other.add_feedback(*range(20))
    other.append([other.draft(Kind.CONFIGURE, "first", dump({"paused": False}))])
    other.add_feedback(*range(20, 60))
    other.append([other.draft(Kind.CONFIGURE, "second", dump({"paused": False}))])
    with serving(iris_models, tmp_path) as service:
        history = History(tmp_path / "data")
        history.add_feedback(*range(20))
        wait_learned(service, seq := history.add_feedback("secret"))
        assert report_at(tmp_path / "data", seq).history[:, 0].sum() == 21
        history.add_feedback(*range(20, 60))
        wait_learned(service, last := history.forget("secret"))
        report = report_at(tmp_path / "data", last)
        assert replayed(history) == replayed(other) == report.history_sha256
        history.close()
    other.close()
