"""`softstep bisect`: which events changed the answer to a row."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log.admin_payloads import dump
from service.store.log.events import Draft, Kind
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.sqlite import SqliteLog
from tests.support.data_directories import (
    LIMIT,
    History,
    file_hashes,
    iris_artifact,
    json_lines,
    run_command,
    wait_learned,
)
from tests.support.model_artifacts import make_artifact
from tests.support.running_service import serving

ROW = [6.0, 2.7, 5.1, 1.6]
TEXT = json.dumps(ROW)


def teach(history: History, id_: str, *labels: int, classes: int = 3) -> int:
    """Append an event that teaches the row, once with each label; return its seq."""
    X = np.array([ROW] * len(labels), np.float32)
    payload = encode_rows(X, np.array(labels), Targets.INDEX, classes)
    return history.append([history.draft(Kind.FEEDBACK, id_, payload)._replace(actor=b"key:k7m2q9xd")])


def configure(history: History, **changes: object) -> int:
    """Append a CONFIGURE."""
    return history.append([history.draft(Kind.CONFIGURE, f"configure {changes}", dump(changes))])


def bisect(path: Path, *argv: object, row: object = TEXT) -> list[Any]:
    """Return what the command prints as JSON."""
    return json_lines(run_command("bisect", "iris", row, *argv, "--data", path, "--json"))


def label_at(history: History, seq: int) -> tuple[str, dict[str, float]]:
    """Return the label and the probabilities of the row in a state that is replayed."""
    fold = history.replay(seq)
    P, (label,) = fold.state.served_parameters().build_model().classify(np.array([ROW], np.float32))
    return fold.classes[label], {name: float(str(p)) for name, p in zip(fold.classes, P[0], strict=True)}


@pytest.fixture
def history(tmp_path: Path) -> Any:
    """A stream whose events of every kind change the label of one row."""
    history = History(tmp_path)
    for number in range(4):
        teach(history, f"a{number}", 1)
    history.add_class("new")
    for number in range(4):
        teach(history, f"b{number}", 2, 2, classes=4)
    history.rollback(4)
    configure(history, shadow=True)
    for number in range(4):
        teach(history, f"c{number}", 2)
    configure(history, shadow=False)
    history.correct(12, 1)
    history.correct(13, 1)
    history.correct(14, 1)
    yield history
    history.close()


def test_every_change_of_the_label_is_listed_with_its_event(history: History, tmp_path: Path) -> None:
    """The label changes at exactly the seqs at which that of the replayed state does; events of any kind change it."""
    last = history.log.stream_state(history.stream.number).seq
    expected: list[tuple[int, str, dict[str, float]]] = []
    for seq in range(last + 1):
        label, probabilities = label_at(history, seq)
        if not expected or expected[-1][1] != label:
            expected.append((seq, label, probabilities))
    found = bisect(tmp_path)
    assert [(one["seq"], *one["labels"], one["probabilities"]) for one in found] == expected
    changes = [(one["seq"], one["kind"], one["labels"], one["change"]) for one in found]
    assert changes == [
        (0, None, ["virginica"], None),
        (1, "feedback", ["versicolor"], {"labels": ["versicolor"]}),
        (6, "feedback", ["virginica"], {"labels": ["virginica", "virginica"]}),
        (10, "rollback", ["versicolor"], {"seq": 4}),
        (16, "configure", ["virginica"], {"shadow": False}),
        (18, "correct", ["versicolor"], {"seq": 13, "labels": ["versicolor"]}),
    ]
    assert {name: found[1][name] for name in ("time", "actor", "id")} == {
        "time": "1970-01-01T00:00:00.001+00:00", "actor": "key:k7m2q9xd", "id": "a0",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "threshold"), [("virginica", 0.25), ("new", 0.0001), ("new", 0.0)])
def test_crossings_of_a_threshold_are_listed(history: History, tmp_path: Path, name: str, threshold: float) -> None:
    """A class reaches a probability and falls below it at the same seqs as in the replayed states."""
    last = history.log.stream_state(history.stream.number).seq
    expected: list[tuple[int, bool]] = []
    for seq in range(last + 1):
        is_reached = label_at(history, seq)[1].get(name, -1) >= threshold
        if not expected or expected[-1][1] != is_reached:
            expected.append((seq, is_reached))
    found = bisect(tmp_path, "--threshold", f"{name}={threshold}")
    assert [(one["seq"], one["reached"]) for one in found] == expected
    assert len(expected) > 1


@pytest.mark.usefixtures("history")
def test_the_text_has_a_line_for_each_change(tmp_path: Path) -> None:
    """The newest change is last, with the label that the event taught or what an admin event did."""
    done = run_command("bisect", "iris", TEXT, "--data", tmp_path)
    headings, *lines = done.stdout.splitlines()
    assert headings.split() == ["seq", "time", "kind", "answer", "change", "actor", "id"]
    assert [line.split()[0] for line in lines] == ["0", "1", "6", "10", "16", "18"]
    assert lines[0].split()[1] == "virginica"
    changes = "virginica, virginica", "to seq 4", "shadow false", "event 13: versicolor"
    for line, change in zip(lines[2:], changes, strict=True):
        assert change in line
    done = run_command("bisect", "iris", TEXT, "--threshold", "new=0", "--data", tmp_path)
    _, before, after, *_ = done.stdout.splitlines()
    assert "new absent" in before
    assert " reached " in after


def test_the_last_answer_is_the_one_that_is_served(iris_models: Path, tmp_path: Path) -> None:
    """Beside a running service the last change has the label and the probabilities of `:predict` in that state."""
    with serving(iris_models, tmp_path) as service:
        history = History(tmp_path / "data")
        for number in range(30):
            teach(history, f"a{number}", 2)
        last = teach(history, "z", *[1] * 8)
        wait_learned(service, last)
        answer = httpx.post(f"{service.url}/v1/models/iris:predict", json={"instances": [ROW]}).json()
        history.close()
        done = run_command("bisect", "iris", TEXT, "--data", tmp_path / "data", "--json")
        *_, newest = json_lines(done)
    assert (newest["seq"], newest["labels"]) == (last, answer["labels"])
    assert list(newest["probabilities"].values()) == answer["predictions"][0]


def test_soft_labels_and_labels_of_many_rows_are_listed(tmp_path: Path) -> None:
    """A distribution shows its classes that have a probability; the text shows the labels of three rows at most."""
    history = History(tmp_path)
    X, soft = np.array([ROW] * 4, np.float32), np.array([[0, 0.75, 0.25]] * 4, np.float32)
    history.append([history.draft(Kind.FEEDBACK, "soft", encode_rows(X, soft, Targets.DISTRIBUTION, 3))])
    history.close()
    _, change = bisect(tmp_path)
    assert change["change"] == {"labels": [{"versicolor": 0.75, "virginica": 0.25}] * 4}
    line = run_command("bisect", "iris", TEXT, "--data", tmp_path).stdout.splitlines()[-1]
    assert '{"versicolor":0.75,"virginica":0.25} and 1 more' in line


def test_labels_of_a_multilabel_model_are_lists(tmp_path: Path) -> None:
    """An answer and a label have any number of classes."""
    artifact = make_artifact("multilabel", 2, ["a", "b"], thresholds=[0.9, 0.9], learning={"rule": "newton"})
    data = DataDirectory(tmp_path)
    folder = data.stream_folder("tags", 1)
    folder.path.mkdir(parents=True)
    bind_artifact(folder, artifact, LIMIT)
    log = SqliteLog(data.log)
    stream = log.open_stream("tags", 1, compute_genesis(artifact), 2)
    payload = encode_rows(np.ones((40, 2), np.float32), np.array([[1, 1]] * 40), Targets.SET, 2)
    log.append([Draft(stream.number, Kind.FEEDBACK, b"both", payload, 1)])
    log.close()
    first, change = json_lines(run_command("bisect", "tags", "[1, 1]", "--data", tmp_path, "--json"))
    assert (first["labels"], change["labels"], change["change"]) == ([], ["a", "b"], {"labels": [["a", "b"]] * 40})
    assert "no label" in run_command("bisect", "tags", "[1, 1]", "--data", tmp_path).stdout


def test_states_without_forgotten_events_are_marked(history: History, tmp_path: Path) -> None:
    """A forgotten event is in no state; those that were served with it are marked."""
    history.forget("a0")
    found = bisect(tmp_path)
    assert [(one["seq"], one["lacks_forgotten"]) for one in found][:2] == [(0, False), (2, True)]
    assert found[1]["labels"] == ["versicolor"]
    assert "* made without" in run_command("bisect", "iris", TEXT, "--data", tmp_path).stdout


def test_the_data_directory_stays_as_it_is(history: History, tmp_path: Path) -> None:
    """No file is written, made or removed."""
    history.close()
    before = file_hashes(tmp_path)
    assert len(bisect(tmp_path)) == 6
    assert file_hashes(tmp_path) == before


@pytest.mark.usefixtures("history")
def test_the_row_may_be_an_object_a_file_or_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All forms of one row give one result."""
    expected = bisect(tmp_path)
    named = json.dumps(dict(zip(reversed(iris_artifact().manifest.features), reversed(ROW), strict=True)))
    assert bisect(tmp_path, row=named) == expected
    (tmp_path / "row.json").write_text(f"  {named}\n")
    assert bisect(tmp_path, row=tmp_path / "row.json") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert bisect(tmp_path, row="-") == expected


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("[1, 2]", "Row 0 has 2 values; this model takes 4."),
        ("[1, 2", "the row is not valid JSON, nests too deeply, or names a feature twice"),
        ("[1, 2, 3, \udcff]", "the row is not valid JSON"),
        ("[1e99, 0, 0, 0]", "must be finite"),
        ('{"petal": 1}', "petal"),
        ("missing.json", "disk error: No such file or directory"),
    ],
)
def test_a_row_of_another_model_is_rejected(tmp_path: Path, row: str, sentence: str) -> None:
    """The command names what is wrong, on standard error."""
    done = run_command("bisect", "iris", row, "--data", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr


@pytest.mark.usefixtures("history")
def test_a_wrong_threshold_is_rejected(tmp_path: Path) -> None:
    """It needs a class that the model has in some state, and a probability."""
    for wrong in ("setosa", "setosa=2", "setosa=x", "setosa=nan"):
        assert run_command("bisect", "iris", TEXT, "--threshold", wrong, "--data", tmp_path).returncode == 2
    done = run_command("bisect", "iris", TEXT, "--threshold", "rose=0.5", "--data", tmp_path)
    assert (done.returncode, done.stderr) == (1, "softstep: no state of the model has the class of --threshold\n")
