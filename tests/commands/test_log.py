"""`softstep log`: the latest events of a model from the data directory, and those that come."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.commands import log as command
from service.store.log.admin_payloads import dump
from service.store.log.events import Kind
from service.store.states.event_entries import EventChoice, EventEntries
from service.store.states.report import write_report
from tests.support.data_directories import History, json_lines, row_payload, run_command
from tests.support.paths import ROOT
from tests.support.processes import SECONDS
from tests.support.read_only import read_only, shared_folder
from tests.support.reports import make_report


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """A stream of feedback and changes, whose log stays open as by a running service."""
    history = History(tmp_path)
    history.append(history.draft(Kind.FEEDBACK, f"evt-{n}", row_payload(n))._replace(actor=b"key:a") for n in range(3))
    history.forget("evt-1")
    history.append([history.draft(Kind.CONFIGURE, "pause", dump({"paused": True}))])
    history.rollback(4)
    yield history
    history.close()


def printed(history: History, *argv: object) -> list[dict[str, Any]]:
    """Return what the command prints as JSON."""
    done = run_command("log", "iris", *argv, "--data", history.data.path, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json_lines(done)


def listed(history: History, choice: EventChoice = EventChoice.ALL) -> list[dict[str, Any]]:
    """Return the entries of the call, the oldest first."""
    return EventEntries(history.folder.path).list_entries(history.log, 1, choice, 200)[::-1]


def test_commands_that_read_work_in_a_read_only_directory(history: History) -> None:
    """They print there what they print elsewhere, with the log in use or not."""
    calls = [("log", "iris"), ("events", "iris"), ("replay", "iris"), ("verify",), ("verify", "--refold")]
    for is_open in (True, False):
        if not is_open:
            history.close()
        expected = [run_command(*call, "--data", history.data.path) for call in calls]
        with shared_folder() as folder:
            shutil.copytree(history.data.path, folder / "data")
            with read_only(folder):
                found = [run_command(*call, "--data", folder / "data") for call in calls]
        assert [(done.returncode, done.stdout, done.stderr) for done in found] == [
            (0, done.stdout, done.stderr) for done in expected
        ]


def test_a_read_only_directory_without_a_file_of_the_log_is_refused(history: History) -> None:
    """The sentence says what is missing, and what to do."""
    with shared_folder() as folder:
        shutil.copytree(history.data.path, folder / "data")
        (folder / "data" / "log.sqlite-shm").unlink()
        with read_only(folder):
            done = run_command("log", "iris", "--data", folder / "data")
    assert (done.returncode, done.stdout) == (1, "")
    assert "read-only, and log.sqlite-shm is missing; copy the directory and use the copy" in done.stderr


def test_the_events_are_those_of_the_call(history: History) -> None:
    """JSON has the members of the call, the newest event last; nothing of a row is shown."""
    events = printed(history)
    assert events == listed(history)
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event["removed"] for event in events] == [None, "forgotten", None, None, "rolled_back", None]
    assert printed(history, "--kind", "admin") == listed(history, EventChoice.ADMIN) == events[3:]
    assert printed(history, "--limit", 2) == events[-2:]
    assert printed(history, "--limit", 2, "--kind", "admin") == events[-2:]


def test_a_long_list_is_read_in_parts(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result does not depend on the size of the parts."""
    events = listed(history)
    for size in (1, 2, 3, 5, 6, 7):
        monkeypatch.setattr(command, "READ_EVENTS", size)
        for limit in (1, 3, 6, 9):
            assert printed(history, "--limit", limit) == events[-limit:]
            assert printed(history, "--limit", limit, "--kind", "admin") == events[3:][-limit:]


def test_the_text_has_a_column_for_each_member(history: History) -> None:
    """The id comes near the end, because it can have any length, and then the content of a change."""
    done = run_command("log", "iris/1", "--data", history.data.path)
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["seq", "time", "kind", "removed", "rows", "label", "answer", "loss", "actor", "id"]
    time = "1970-01-01T00:00:00.001+00:00"
    label = str(listed(history)[0]["label"])
    assert lines[0].split() == ["1", time, "feedback", "1", label, "key:a", "evt-0"]
    assert lines[1].split() == ["2", time, "feedback", "forgotten", "key:a", "evt-1"]
    assert lines[4].split() == ["5", time, "configure", "rolled_back", "pause", "paused", "true"]
    assert heading.index("  id") == lines[0].index("  evt-0")


def test_surprising_rows_come_with_their_losses(history: History) -> None:
    """The largest loss comes first, and they cannot be followed."""
    assert printed(history, "--kind", "surprising") == []
    losses, rows = np.array([[2.5], [1.5]]), np.array([[3, 1, 0], [1, 2, 0]])
    report = make_report(6, surprising=losses, surprising_rows=rows)
    write_report(history.folder.report, report)
    events = printed(history, "--kind", "surprising")
    assert [(one["seq"], one["label"], one["answer"], one["loss"]) for one in events] == [
        (3, 1, 0, 2.5),
        (1, 2, 0, 1.5),
    ]
    done = run_command("log", "iris", "--data", history.data.path, "--kind", "surprising")
    assert done.stdout.splitlines()[1].split()[-4:] == ["0", "2.500000", "key:a", "evt-2"]
    assert run_command("log", "iris", "--kind", "surprising", "--follow", "--data", history.data.path).returncode == 2


@pytest.mark.parametrize("kind", ["all", "admin"])
def test_new_events_are_followed(history: History, kind: str) -> None:
    """Each event is printed once, soon after another process has stored it; Ctrl+C ends the command quietly."""
    argv = [sys.executable, "-m", "service", "log", "iris", "--follow", "--json", "--limit", "1", "--kind", kind]
    environment = {**os.environ, "SOFTSTEP_DATA": str(history.data.path)}
    with subprocess.Popen(
        argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # a shell's background job ignores it
    ) as process:  # fmt: skip
        late = threading.Timer(3 * SECONDS, process.kill)  # a command that prints too little must not be waited for
        late.start()
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            seqs = [json.loads(process.stdout.readline())["seq"]]
            history.add_feedback("b", "c")
            history.rollback(2)
            history.add_feedback("d")
            history.rollback(1)
            expected = [6, 7, 8, 9, 10, 11] if kind == "all" else [6, 9, 11]
            seqs += [json.loads(process.stdout.readline())["seq"] for _ in expected[1:]]
            assert seqs == expected
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == process.stderr.read() == b""
            assert process.wait(60) == 130
        finally:
            late.cancel()
            process.kill()  # nor one that never ends


def test_unknown_models_and_options_are_reported(tmp_path: Path) -> None:
    """Without a log, and for an unknown model, the exit code is 1; a wrong option has 2."""
    assert run_command("log", "iris", "--data", tmp_path).returncode == 1
    history = History(tmp_path)
    assert printed(history) == []
    assert run_command("log", "digits", "--data", tmp_path).returncode == 1
    for wrong in (["--limit", "0"], ["--limit", "-1"], ["--limit", "x"], ["--limit", "9" * 5000], ["--kind", "none"]):
        assert run_command("log", "iris", *wrong, "--data", tmp_path).returncode == 2
    history.close()
