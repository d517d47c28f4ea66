"""`softstep whatif`: variants of what a model has learned, beside what happened."""

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.learn.event_fold import EventFold
from service.store.artifact.artifact import Artifact
from service.store.artifact.hashing import hash_weights
from service.store.log.admin_payloads import dump
from service.store.log.events import Kind
from tests.support.data_directories import (
    History,
    file_hashes,
    iris_artifact,
    json_lines,
    run_command,
    run_softstep,
    wait_learned,
)
from tests.support.read_only import read_only, shared_folder
from tests.support.running_service import serving


def whatif(data: Path, *options: object) -> list[dict[str, Any]]:
    """Return the results of a comparison: without changes, then of each variant."""
    return json_lines(run_command("whatif", "iris", "--data", data, "--json", *options))


def write_history(data: Path) -> History:
    """Return a history with events of every kind that a client can cause, closed by the caller."""
    history = History(data)
    history.add_feedback(*range(40))
    history.correct(7, 2)
    history.forget(3, 5)
    configure(history, rule="ftrl", constants={"rate": 0.2})
    seq = history.add_feedback(*range(40, 60))
    configure(history, paused=True)
    history.add_feedback(*range(60, 70))
    configure(history, paused=False)
    history.rollback(seq)
    history.add_class("new")
    history.add_feedback(*range(100, 140), classes=4)
    return history


def configure(history: History, **changes: object) -> int:
    """Change how the model learns."""
    return history.append([history.draft(Kind.CONFIGURE, f"configure {changes}", dump(changes))])


def with_rule(rule: str, **constants: float) -> Artifact:
    """Return the shipped model with a learning rule in its manifest."""
    shipped = iris_artifact()
    fields = shipped.manifest.model_dump(mode="json", exclude_none=True, exclude={"tensors_sha256", "metrics"})
    del fields["format_version"]
    return Artifact.from_fields(fields | {"learning": {"rule": rule, "constants": constants}}, shipped.tensors)


def fold_events(history: History, artifact: Artifact, seqs: range) -> EventFold:
    """Return the fold of some events of a history, one at a time."""
    fold = EventFold(artifact)
    for seq in seqs:
        fold.fold_events(history.log.read_events(history.stream.number, seq - 1, 1))
    return fold


def test_the_unchanged_fold_equals_what_is_served(iris_models: Path, tmp_path: Path) -> None:
    """Beside a running service the hash, the loss and the calibration error are those of the metadata."""
    data = tmp_path / "data"
    with serving(iris_models, tmp_path) as service:
        history = write_history(data)
        metadata = wait_learned(service, history.log.stream_state(history.stream.number).seq)
        unchanged, ftrl = json_lines(run_softstep("whatif", "iris", "--data", data, "--json", "--rule", "ftrl"))
        assert unchanged["weights_sha256"] == metadata["weights_sha256"] != ftrl["weights_sha256"]
        assert (unchanged["published"], ftrl["published"]) == ("equal", None)
        progressive = metadata["progressive"]
        for name in ("events", "rows", "loss", "accuracy"):
            assert unchanged[name] == progressive[name]
        assert unchanged["calibration_error"] == progressive["calibration"]["expected_error"]
        assert httpx.get(f"{service.url}/v1/models/iris").json()["seq"] == unchanged["seq"]
        history.close()


def test_a_variant_without_effect_has_the_same_hash(tmp_path: Path) -> None:
    """With the constant that was in effect each fold has the same end, loss and accuracy."""
    data = tmp_path / "data"
    write_history(data).close()
    unchanged, same, other = whatif(data, "--constants", "firmness=0.05", "--variant", "firmness=0.5")
    assert {name for name in unchanged if unchanged[name] != same[name]} <= {"variant", "constants"}
    assert other["weights_sha256"] != unchanged["weights_sha256"]
    (replayed,) = json_lines(run_command("replay", "iris", "--data", data, "--json"))
    assert unchanged["weights_sha256"] == replayed["weights_sha256"]


def test_a_rule_holds_from_the_start(tmp_path: Path) -> None:
    """The end is that of a model whose manifest names the rule; rules that were configured have no effect."""
    data = tmp_path / "data"
    history = History(data)
    history.add_feedback(*range(20))
    configure(history, rule="adagrad", paused=True)
    history.add_feedback(*range(20, 30))
    configure(history, rule="newton", constants={"rate": 1.0}, paused=False)
    last = history.add_feedback(*range(30, 50))
    _, variant = whatif(data, "--rule", "ftrl", "--constants", "rate=0.1,beta=2")
    fold = fold_events(history, with_rule("ftrl", rate=0.1, beta=2.0), range(1, 21))
    fold.state.configure({"paused": True})
    fold.fold_events(history.log.read_events(history.stream.number, 21, 10))
    fold.state.configure({"paused": False})
    fold.fold_events(history.log.read_events(history.stream.number, 32, last))
    assert variant["weights_sha256"] == hash_weights(fold.state.served_parameters())
    assert (variant["rule"], variant["constants"]["rate"], variant["constants"]["beta"]) == ("ftrl", 0.1, 2.0)
    assert variant["loss"] == fold.progressive_validation["loss"]
    history.close()


def test_constants_without_a_rule_change_every_rule(tmp_path: Path) -> None:
    """They replace single constants of the first rule and of those that were configured."""
    data = tmp_path / "data"
    history = History(data)
    history.add_feedback(*range(20))
    configure(history, rule="ftrl", constants={"beta": 2.0})
    last = history.add_feedback(*range(20, 40))
    _, variant = whatif(data, "--variant", "rate=0.5")
    fold = fold_events(history, with_rule("newton", rate=0.5), range(1, 21))
    fold.state.configure({"rule": "ftrl", "constants": {"beta": 2.0, "rate": 0.5}})
    fold.fold_events(history.log.read_events(history.stream.number, 21, last))
    assert variant["weights_sha256"] == hash_weights(fold.state.served_parameters())
    done = run_command("whatif", "iris", "--data", data, "--constants", "floor=0.1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "softstep: variant 1: event 21 configures a rule that lacks one of the constants, "
        "or needs it in another range; name a rule too\n"
    )
    history.close()


def test_the_table_has_a_line_for_each_variant(tmp_path: Path) -> None:
    """Its text names the changes, and a model without rows has no means."""
    history = History(tmp_path)
    done = run_command("whatif", "iris", "--data", tmp_path, "--rule", "sgd", "--variant", "rate=2 rule=newton")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "iris/1 at seq 0"
    assert [line.split()[-1] for line in lines[2:]] == [iris_artifact().weights_sha256] * 3
    assert [line[:18].strip() for line in lines[2:]] == ["unchanged", "rule=sgd", "rule=newton rate=2"]
    history.close()


def test_the_data_is_not_changed(tmp_path: Path) -> None:
    """No file is written, created or removed, and the data directory may be read-only.

    A published state that differs is reported.
    """
    data = tmp_path / "data"
    history = History(data)
    seq = history.add_feedback(1, 2, 3)
    history.close()
    run_command("replay", "iris", "--data", data, "--seq", 2, "--keep", history.folder.snapshots)
    (history.folder.snapshots / "2").rename(history.folder.snapshots / str(seq))
    before = file_hashes(tmp_path)
    done = run_command("whatif", "iris", "--data", data, "--rule", "ftrl")
    assert done.returncode == 1
    assert done.stdout.endswith("the published state is different\n")
    assert file_hashes(tmp_path) == before
    with shared_folder() as folder:
        shutil.copytree(data, folder / "data")
        with read_only(folder):
            assert run_command("whatif", "iris", "--data", folder / "data", "--rule", "ftrl").stdout == done.stdout
    nowhere = run_command("whatif", "iris", "--data", tmp_path / "none", "--rule", "ftrl")
    assert (nowhere.returncode, (tmp_path / "none").exists()) == (1, False)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        ([], 2, "name a variant"),
        (["--rule", "x"], 1, "variant 1: learning.rule must be one of"),
        (["--rule", "sgd", "--variant", "rule=ftrl rate=-1"], 1, "variant 2: learning.constants.rate of ftrl must"),
        (["--constants", "rate"], 2, "write each change as name=value"),
        (["--constants", "rate=x"], 2, "the value of a constant must be a number"),
        (["--constants", "rate=nan"], 2, "the value of a constant must be a number"),
        (["--variant", "rate=1 rate=2"], 2, "a name is given twice"),
        (["--variant", "rule='ftrl"], 2, "a quote of a variant is not closed"),
        (["--variant", ""], 2, "write each change as name=value"),
    ],
)
def test_invalid_variants_are_reported(tmp_path: Path, options: list[str], code: int, sentence: str) -> None:
    """The exit code is 2 for text that cannot be parsed, and 1 for a change that the model cannot make."""
    History(tmp_path).close()
    done = run_command("whatif", "iris", "--data", tmp_path, *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr
