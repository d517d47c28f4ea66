"""`softstep whatif`: variants of what a model has learned, beside what happened."""

import shlex
import shutil
import tarfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import numpy as np
import pytest

from service.learn.event_fold import EventFold
from service.learn.fold_upgrade import take_over
from service.store.artifact.artifact import Artifact, read_artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.hashing import hash_weights
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log.admin_payloads import dump, dump_classes
from service.store.log.events import Draft, Kind
from service.store.log.feedback_blocks import decode_rows
from service.store.log.feedback_log import read_lineage
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
from tests.support.history_machine import restore_fold_version, set_fold_version
from tests.support.make_fold1 import GOLDEN
from tests.support.read_only import read_only, shared_folder
from tests.support.running_service import serving

# Files that do not name feedback, or labels, of the history of a test.
FILES = {
    "ids.txt": b"1\r\n\nx\n",
    "bytes.txt": b"1\n\xff\n",
    "quotes.csv": b'1,"0\n',
    "unknown.csv": b"1,0\nx,0\n",
    "count.csv": b"1,0,0\n",
    "class.csv": b"1,0\n2,rosa\n",
    "later.csv": b"1,new\n",
    "json.csv": b'1,"[0.5,"\n',
}


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
        unchanged, ftrl = whatif(data, "--rule", "ftrl")
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


def test_events_are_left_out_as_if_they_were_forgotten(tmp_path: Path) -> None:
    """The end is that of the same log after the events are forgotten; ids come from the command line or a file."""
    data = tmp_path / "data"
    history = write_history(data)
    ids = [7, 11, 55, 65, 120, 5]  # of a correction, a rollback and a forgotten event too
    (tmp_path / "ids.txt").write_text("\n".join(map(str, ids)) + "\n\n")
    text, file = ",".join(map(str, ids)), shlex.quote(str(tmp_path / "ids.txt"))
    unchanged, listed, filed, long = whatif(
        data, "--without", text, "--variant", f"without={file}", "--variant", f"without={','.join([text] * 20)}"
    )
    assert (listed["left_out"], listed["relabeled"], listed["events"]) == (4, 0, unchanged["events"] - 4)
    assert listed["shared_rows"] == unchanged["rows"] - 4 == listed["rows"]
    history.forget(*(id_ for id_ in ids if id_ != 5))
    (replayed,) = json_lines(run_command("replay", "iris", "--data", data, "--json"))
    for variant in (listed, filed, long):
        assert variant["weights_sha256"] == replayed["weights_sha256"] != unchanged["weights_sha256"]
        assert (variant["loss"], variant["accuracy"]) == (replayed["loss"], replayed["accuracy"])
    history.close()


def test_labels_count_as_if_they_were_corrected(tmp_path: Path) -> None:
    """The end is that of the same log after the corrections; of two for one event the later one counts."""
    data, labels = tmp_path / "data", tmp_path / "labels.csv"
    history = write_history(data)
    lines = ["id,label", "7,0", "", "12,virginica", "65,1", "5,1", '13,"[0.5, 0.25, 0.25]"', "130,new", "12,versicolor"]
    labels.write_text("\n".join(lines), "utf-8-sig")
    unchanged, relabeled, both = whatif(
        data, "--labels", labels, "--variant", f"labels={shlex.quote(str(labels))} without=12 rule=sgd"
    )
    assert (relabeled["left_out"], relabeled["relabeled"], relabeled["rows"]) == (0, 4, unchanged["rows"])
    assert (both["left_out"], both["relabeled"]) == (1, 3)
    history.correct(8, 0)
    history.correct(13, 1)
    history.correct(14, [0.5, 0.25, 0.25])
    event = history.log.find_ids("iris", [b"130"])[b"130"]
    history.correct(event.seq, 3)
    (replayed,) = json_lines(run_command("replay", "iris", "--data", data, "--json"))
    assert relabeled["weights_sha256"] == replayed["weights_sha256"]
    history.forget(12)
    _, expected = whatif(data, "--rule", "sgd")
    assert both["weights_sha256"] == expected["weights_sha256"]
    history.close()


def test_the_shared_loss_is_over_the_same_rows(tmp_path: Path) -> None:
    """Rows that one variant leaves out or gives other labels count in no shared loss; events have several rows."""
    history = History(tmp_path)
    for number in range(30):
        payload = encode_rows(
            np.random.default_rng(number).uniform(0.1, 7.0, (3, 4)).astype(np.float32),
            np.array([0, 1, 2]), Targets.INDEX, 3,
        )  # fmt: skip
        history.append([history.draft(Kind.FEEDBACK, f"three {number}", payload)])
    (tmp_path / "labels.csv").write_text("three 4,setosa,versicolor,virginica\nthree 9,1,1,1\n")
    results = whatif(tmp_path, "--labels", tmp_path / "labels.csv", "--variant", "'without=three 2,three 28'")
    assert [(one["left_out"], one["relabeled"]) for one in results] == [(0, 0), (0, 1), (2, 0)]
    for result, without, changes in zip(results, [(), (), (3, 29)], [{}, {10: 1}, {}], strict=True):
        fold, shared = EventFold(iris_artifact()), []
        for event in history.log.read_events(history.stream.number, 0, 30):
            if event.seq in without:
                continue
            block = decode_rows(event.payload or b"")
            labels = np.full(3, changes[event.seq]) if event.seq in changes else block.targets.astype(np.int64)
            losses = fold.state.fold_rows(block.X, labels)
            shared += [] if event.seq in {3, 10, 29} else losses.tolist()
        assert result["shared_rows"] == len(shared) == 81
        assert result["shared_loss"] == pytest.approx(np.mean(shared), rel=1e-12)
        assert result["weights_sha256"] == hash_weights(fold.state.served_parameters())
    done = run_command("whatif", "iris", "--data", tmp_path, "--without", "three 2", "--rule", "ftrl")
    assert "shared loss" in done.stdout
    assert f"{'rule=ftrl':9}" in done.stdout
    history.close()


def test_a_network_learns_by_its_rules_and_sets_are_labels(tmp_path: Path) -> None:
    """A multi-label network takes a file with sets of classes, and refuses the rule that it cannot learn by."""
    rng, names = np.random.default_rng(0), ("relu", "identity")
    layers = [{"weight": f"w{n}", "bias": f"b{n}", "activation": name} for n, name in enumerate(names)]
    tensors = {"w0": rng.normal(size=(4, 6)), "b0": np.zeros(6), "w1": rng.normal(size=(6, 3)), "b1": np.zeros(3)}
    fields = {"head": "multilabel", "classes": ["a", "b", "c"], "features": 4, "dtype": "float64", "layers": layers}
    artifact = Artifact.from_fields(fields, tensors)
    data = DataDirectory(tmp_path / "data")
    folder = data.stream_folder("net", 1)
    folder.path.mkdir(parents=True)
    bind_artifact(folder, artifact, LIMIT)
    log = SqliteLog(data.log)
    stream = log.open_stream("net", 1, compute_genesis(artifact), 3)
    rows = [(rng.normal(size=(2, 4)), rng.integers(0, 2, (2, 3))) for _ in range(10)]
    payloads = [encode_rows(X, sets, Targets.SET, 3) for X, sets in rows]
    log.append([Draft(stream.number, Kind.FEEDBACK, b"%d" % n, payload, 0) for n, payload in enumerate(payloads)])
    log.close()
    (tmp_path / "labels.csv").write_text('3,"[""a"",2]",[]\n')
    argv = ("whatif", "net", "--data", data.path, "--labels", tmp_path / "labels.csv")
    unchanged, relabeled, sgd = json_lines(run_command(*argv, "--variant", "rule=sgd", "--json"))
    plain, changed = EventFold(artifact), EventFold(artifact)
    sets = np.array([[1, 0, 1], [0, 0, 0]])
    plain.fold_payloads(payloads)
    changed.fold_payloads([*payloads[:3], encode_rows(rows[3][0], sets, Targets.SET, 3), *payloads[4:]])
    for result, fold in ((unchanged, plain), (relabeled, changed)):
        assert result["weights_sha256"] == hash_weights(fold.state.served_parameters())
        assert result["calibration_error"] == fold.state.reliability["expected_error"]
    assert (relabeled["relabeled"], relabeled["shared_rows"], sgd["form"]) == (1, 18, "layers")
    done = run_command(*argv, "--rule", "newton")
    assert done.returncode == 1
    assert done.stderr == "softstep: variant 1: a model with hidden layers learns by sgd, adagrad, ftrl\n"


def test_a_variant_is_kept_as_a_version(tmp_path: Path) -> None:
    """It answers with the bits of the variant's end, names its changes, and continues to learn by its rule."""
    data = tmp_path / "data"
    write_history(data).close()
    models = tmp_path / "models"
    models.mkdir()
    (tmp_path / "ids.txt").write_text("1\n2\n")
    without = f"without={tmp_path}/ids.txt rule=adagrad keep={models}"
    results = whatif(data, "--rule", "ftrl", "--keep", tmp_path / "kept", "--variant", without)
    assert [one["directory"] for one in results] == [None, str(tmp_path / "kept"), str(models / "1")]
    for result, changes in zip(results[1:], ["rule=ftrl", "rule=adagrad without=ids.txt"], strict=True):
        artifact = read_artifact(Path(result["directory"]), LIMIT)
        assert artifact.weights_sha256 == result["weights_sha256"]
        provenance = artifact.manifest.provenance
        assert (provenance["whatif"], provenance["learned_from"]) == (changes, "iris/1")
        assert provenance["weights_sha256"] == result["weights_sha256"]
        assert artifact.manifest.learning is not None
        assert artifact.manifest.learning.rule == result["rule"]
        assert artifact.manifest.classes[-1] == "new"
    done = run_command("whatif", "iris", "--data", data, "--variant", f"rate=1 keep={models}")
    assert done.stdout.splitlines()[-1] == f"{models / '2'}: rate=1"


def test_the_losses_are_drawn(tmp_path: Path) -> None:
    """The plot has a line for each fold, with the mean loss in the legend."""
    data = tmp_path / "data"
    write_history(data).close()
    results = whatif(data, "--rule", "ftrl", "--variant", "without=1,2", "--plot", tmp_path / "plot.svg")
    root = ET.parse(tmp_path / "plot.svg").getroot()  # noqa: S314  # the product's own output
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {f"{one['variant']}, mean {one['loss']:.4f}" for one in results} <= texts
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) >= len(results)


def test_a_variant_starts_from_a_base(tmp_path: Path) -> None:
    """After an upgrade variants continue from the state of the older release, and change only later events."""
    with tarfile.open(GOLDEN / "data.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    data = tmp_path / "data"
    history = History.open(data)
    set_fold_version(2)
    try:
        take_over(history.stream, iris_artifact(), history.log, history.folder.checkpoints, 0)
        history.add_feedback(*(f"new {number}" for number in range(20)), classes=4)
        configure(history, rule="ftrl")
        history.add_feedback(*(f"newer {number}" for number in range(20)), classes=4)
        unchanged, same, other, fewer = whatif(
            data, "--constants", "firmness=0.05", "--variant", "rule=sgd", "--variant", "'without=new 3'"
        )
        (replayed,) = json_lines(run_command("replay", "iris", "--data", data, "--json"))
        assert unchanged["weights_sha256"] == same["weights_sha256"] == replayed["weights_sha256"]
        rows = replayed["rows"]
        assert [one["rows"] for one in (unchanged, same, other, fewer)] == [rows, rows, rows, rows - 1]
        assert len({one["weights_sha256"] for one in (unchanged, other, fewer)}) == 3
        base = read_lineage(history.log, history.stream.number).bases[-1]
        first = history.log.read_events(history.stream.number, 0, base.target)
        id_ = next(event.id.decode() for event in first if event.kind == Kind.FEEDBACK and event.payload is not None)
        done = run_command("whatif", "iris", "--data", data, "--without", id_)
        assert (done.returncode, done.stdout) == (1, "")
        assert "is part of a state that an earlier release made" in done.stderr
    finally:
        restore_fold_version()
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
        (["--without", "1,x"], 1, "id 2 of the ids names no feedback of iris/1"),
        (["--without", "a class"], 1, "id 1 of the ids names no feedback of iris/1"),
        (["--without", "other"], 1, "id 1 of the ids names no feedback of iris/1"),
        (["--keep", "new"], 2, "name a variant"),
        (["--variant", "rule=sgd", "--keep", "new"], 2, "in --variant write keep=DIR"),
        (["--variant", "keep=new"], 2, "a variant needs a change besides keep"),
        (["--rule", "sgd", "--keep", "ids.txt"], 1, "the target is a file"),
        (["--rule", "sgd", "--keep", "new", "--variant", "rate=1 keep=new"], 1, "two variants have the same folder"),
        (["--rule", "sgd", "--plot", "none/plot.svg"], 1, "the folder of the plot does not exist"),
        (["--rule", "sgd", "--plot", "data"], 1, "disk error: Is a directory"),
        (["--variant", "without=ids.txt"], 1, "line 3 of the ids names no feedback of iris/1"),
        (["--without", "bytes.txt"], 1, "the file of ids is not text in UTF-8"),
        (["--labels", "none.csv"], 1, "the file of labels cannot be read: No such file or directory"),
        (["--labels", "quotes.csv"], 1, "the file of labels is not text in UTF-8, with a line for each event"),
        (["--labels", "unknown.csv"], 1, "line 2 of the labels names no feedback of iris/1"),
        (["--labels", "count.csv"], 1, 'line 1 of the labels: "labels" has 2 labels for 1 rows'),
        (["--labels", "class.csv"], 1, "line 2 of the labels: The label of row 0 is not one of the model's"),
        (["--labels", "later.csv"], 1, "line 1 of the labels: a class was added after that feedback"),
        (["--labels", "json.csv"], 1, "line 1 of the labels: A label in brackets must be JSON."),
    ],
)
def test_invalid_variants_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, sentence: str
) -> None:
    """The exit code is 2 for text that cannot be parsed, and 1 for a change that the model cannot make."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    history, other = History(tmp_path / "data"), History(tmp_path / "data", 2)
    history.add_feedback(1, 2)
    other.add_feedback("other")
    history.append([history.draft(Kind.CLASSES, "a class", dump_classes(["new"]))])
    done = run_command("whatif", "iris/1", "--data", "data", *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr
    history.close()
    other.close()
