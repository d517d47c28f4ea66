"""`softstep events`: which events a model has, and who sent them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.store.log.admin_payloads import base_id, dump
from service.store.log.events import Draft, Kind
from tests.support.data_directories import History, json_lines, row_payload, run_command
from tests.support.paths import ROOT

ONE, TWO = b"key:k7m2q9xd", b"jwt:" + b"0a" * 32


@pytest.fixture
def history(tmp_path: Path) -> Any:
    """A stream of eight events by two keys, a command, and nobody."""
    history = History(tmp_path)
    drafts = [
        *(history.draft(Kind.FEEDBACK, f"evt-{n}", row_payload(n))._replace(actor=ONE) for n in range(2)),
        history.draft(Kind.FEEDBACK, "evt-ü", row_payload(2))._replace(actor=TWO),
        history.draft(Kind.FEEDBACK, "evt-3", row_payload(3)),
    ]
    history.append(drafts)
    history.forget("evt-0")
    assert run_command("skip", "iris", 3, "--id", "ticket", "--data", tmp_path).returncode == 0
    history.rollback(3)
    history.append([Draft(1, Kind.BASE, base_id(1, 99), dump({"seq": 0, "turns": 3, "state": None}), 5)])
    yield history
    history.close()


def listed(history: History, *argv: object) -> list[dict[str, Any]]:
    """Return what the command prints as JSON."""
    folder = history.folder.path.parents[2]
    done = run_command("events", "iris", *argv, "--data", folder, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json_lines(done)


def test_every_event_is_listed_with_its_actor(history: History) -> None:
    """An event has its seq, time, kind, actor and id, and what has removed it from the state; rows are not shown."""
    time, one, two = "1970-01-01T00:00:00.001+00:00", ONE.decode(), TWO.decode()
    events = listed(history)
    skipped_at = events[5].pop("time")
    assert events == [
        {"seq": 1, "time": time, "kind": "feedback", "removed": "forgotten", "actor": one, "id": "evt-0"},
        {"seq": 2, "time": time, "kind": "feedback", "removed": None, "actor": one, "id": "evt-1"},
        {"seq": 3, "time": time, "kind": "feedback", "removed": "skipped", "actor": two, "id": "evt-ü"},
        {"seq": 4, "time": time, "kind": "feedback", "removed": "rolled_back", "actor": "", "id": "evt-3"},
        {"seq": 5, "time": time, "kind": "forget", "removed": None, "actor": "", "id": "forget ('evt-0',)"},
        {"seq": 6, "kind": "skip", "removed": None, "actor": "command", "id": "ticket"},
        {"seq": 7, "time": time, "kind": "rollback", "removed": None, "actor": "", "id": "rollback 3"},
        {
            "seq": 8, "time": "1970-01-01T00:00:00.005+00:00", "kind": "base", "removed": None, "actor": "",
            "id": "\\xffbase 1 99",
        },
    ]  # fmt: skip
    assert skipped_at > "2026"


def test_the_events_of_one_actor_are_listed(history: History) -> None:
    """An empty actor stands for the events that have none, and an unknown one lists nothing."""
    by_actor = {actor: [event["seq"] for event in listed(history, "--actor", actor)] for actor in (
        ONE.decode(), TWO.decode(), "command", "", "key:unknown", "key:\udcff",
    )}  # fmt: skip
    assert list(by_actor.values()) == [[1, 2], [3], [6], [4, 5, 7, 8], [], []]


def test_the_text_has_a_column_for_each_field(history: History) -> None:
    """Each line has its id last, because an id can have any length."""
    done = run_command("events", "iris/1", "--actor", ONE.decode(), "--data", history.folder.path.parents[2])
    heading, first, second = done.stdout.splitlines()
    assert heading.split() == ["seq", "time", "kind", "removed", "actor", "id"]
    assert first.split() == ["1", "1970-01-01T00:00:00.001+00:00", "feedback", "forgotten", ONE.decode(), "evt-0"]
    assert second.split() == ["2", "1970-01-01T00:00:00.001+00:00", "feedback", ONE.decode(), "evt-1"]
    assert heading.index("id") == first.index("evt-0") == second.index("evt-1")


def test_an_altered_actor_is_reported_by_every_check(history: History) -> None:
    """Neither `events` nor `verify` accepts that an event was sent by somebody else."""
    folder = history.folder.path.parents[2]
    # No public call damages a log; the test changes a row as a faulty disk would.
    with history.log._connection.write_transaction() as connection:
        connection.execute("UPDATE events SET actor = ? WHERE position & 255 = 2", (TWO,))
    done = run_command("events", "iris", "--json", "--data", folder)
    damage = "event 2 of the feedback log is damaged; restore a backup"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"softstep: {damage}\n")
    assert run_command("verify", "--data", folder).returncode == 1


def test_unknown_models_and_options_are_reported(tmp_path: Path) -> None:
    """Without a log, and for an unknown model, the exit code is 1; an unknown option has 2."""
    assert run_command("events", "iris", "--data", tmp_path).returncode == 1
    history = History(tmp_path)
    assert run_command("events", "digits", "--data", tmp_path).returncode == 1
    assert run_command("events", "iris", "--rows", "--data", tmp_path).returncode == 2
    assert listed(history) == []
    history.close()


def test_a_reader_that_leaves_ends_the_list_quietly(history: History) -> None:
    """As with `head`: no traceback, and the exit code of a command that SIGPIPE ended."""
    for turn in range(20):
        history.add_feedback(*range(100 * turn, 100 * turn + 100))
    argv = [sys.executable, "-m", "service", "events", "iris", "--json", "--data", str(history.folder.path.parents[2])]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["seq"] == 1
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141
