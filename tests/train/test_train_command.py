"""`softstep train`: a file of rows becomes the next version of a model that is served, or one sentence says why not."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.commands import train as command
from service.store.artifact.artifact import Artifact
from service.store.artifact.artifact_loader import load_artifact
from service.store.artifact.field_layout import WIDEST
from service.store.artifact.model_factory import build_model
from service.store.artifact.repository import Repository
from service.train import card_pictures, csv_table, data_table
from tests.support.data_directories import run_command
from tests.support.paths import ROOT
from tests.support.processes import CLIENT
from tests.support.running_service import serving
from tests.support.waiting import wait_until

LIMIT = 1 << 30
DRAWS = ("test_the_card", "test_two_runs", "test_a_trained_model")
COLORS = ("red", "green", "blue")
Row = dict[str, Any]


def make_rows(n: int = 400, seed: int = 0) -> list[Row]:
    """Return rows of all kinds of values whose label follows from them, with gaps."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        label = COLORS[int(random.integers(3))]
        number = float(np.round(random.normal(COLORS.index(label), 0.5), 3))
        words = " ".join(random.choice(["big", "small", label, "thing", "of", "much"], 5))
        rows.append(
            {
                "size": None if random.random() < 0.1 else number,
                "shiny": bool(random.random() < 0.5),
                "shape": None if random.random() < 0.05 else str(random.choice(["round", "flat", "long"])),
                "words": words,
                "constant": 7,
                "label": label,
            }
        )
    return rows


def write_csv(path: Path, rows: list[Row]) -> Path:
    """Write rows as CSV; a gap is an empty value."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{name: "" if v is None else v for name, v in row.items()} for row in rows])
    return path


def train(data: Path, tmp_path: Path, *more: object) -> "subprocess.CompletedProcess[str]":
    """Run the command in this process, with one value of C unless another option names more."""
    strength = () if "--c" in more else ("--c", "1")
    return run_command(
        "train", data, "--label", "label", "--name", "toy", "--models", tmp_path / "models", *strength, *more
    )


def trained(data: Path, tmp_path: Path, *more: object) -> Artifact:
    """Train a model, and return it as a service loads it."""
    done = train(data, tmp_path, *more)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1].removeprefix("wrote "))
    return load_artifact(folder, LIMIT, WIDEST)


def refusal(data: Path, tmp_path: Path, *more: object) -> str:
    """Return the sentence of a refusal; then no version was written, and nothing else."""
    done = train(data, tmp_path, *more)
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("softstep: ")
    assert not list(tmp_path.rglob("model.json"))
    return sentence.removeprefix("softstep: ")


@pytest.fixture(autouse=True)
def pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no pictures but in the tests about them: drawing takes ten times as long as all else."""
    if not request.node.name.startswith(DRAWS):
        monkeypatch.setattr(card_pictures, "_render", lambda *_: b"<svg/>")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV file of rows."""
    return write_csv(tmp_path_factory.mktemp("data") / "rows.csv", make_rows())


def test_a_trained_model_is_served_and_asked_with_names(data: Path, tmp_path: Path) -> None:
    """The service that is running takes up the version, and answers to a row of names and values."""
    (tmp_path / "models").mkdir()
    artifact = trained(data, tmp_path, "--c", "0.1,1,10")
    with serving(tmp_path / "models", tmp_path) as service:
        row = {"size": 2.1, "shape": "flat", "words": "much of a blue blue thing"}
        url = f"{service.url}/v1/models/toy:predict"
        answer = CLIENT.post(url, json={"instances": [row, {**row, "constant": 7}]}).json()
        assert answer["labels"] == ["blue", "blue"]
        assert train(data, tmp_path).stdout.endswith("toy/2\n")
        wait_until(lambda: CLIENT.post(url, json={"instances": [row]}).json()["model_version"] == "2")
    assert artifact.manifest.metrics["accuracy"] > 0.85
    assert artifact.manifest.others == "ignore"


def test_the_card_is_beside_the_model(data: Path, tmp_path: Path) -> None:
    """The scan of a repository serves the version and reports no file; the card has each picture for both themes."""
    trained(data, tmp_path, "--c", "0.1,1")
    folder = tmp_path / "models" / "toy" / "1"
    card = (folder / "card.md").read_text()
    pictures = {path.name for path in folder.glob("*.svg")}
    assert pictures == {
        f"card-{name}-{theme}.svg"
        for name in ("losses", "confusion", "reliability", "columns")
        for theme in ("light", "dark")
    }
    assert all(card.count(name) == 1 for name in pictures)
    for part in ("rows.csv", "400 rows", "left out", "it has one value", "words: red", "size", "precision"):
        assert part in card
    assert {path.name for path in folder.iterdir()} == pictures | {"card.md", "model.json", "model.safetensors"}
    view = Repository(tmp_path / "models", LIMIT, 8).scan()
    assert [version.state for version in view.versions.values()] == ["READY"]
    assert view.unserved == ()


def test_two_runs_write_the_same_files(data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        trained(data, tmp_path / name)
    folders = [tmp_path / name / "models" / "toy" / "1" for name in ("one", "two")]
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == sorted(path.name for path in folders[1].iterdir())
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_the_examples_are_made_up_and_have_the_probabilities_of_the_weights(data: Path, tmp_path: Path) -> None:
    artifact = trained(data, tmp_path)
    examples, encoder = artifact.manifest.examples, artifact.row_encoder
    assert examples is not None
    assert encoder is not None
    assert len(examples) == 8
    rows = encoder.encode_objects([example.row for example in examples]).rows
    W, b = (tensor.astype(np.float64) for tensor in (artifact.weights, artifact.bias))
    logits = rows.to_matrix(artifact.n_features) @ W + b
    P = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(P, [example.probabilities for example in examples], atol=2e-5)
    stored = {row["words"] for row in make_rows()}
    assert not stored & {example.row["words"] for example in examples if isinstance(example.row, dict)}


def test_csv_json_lines_and_parquet_of_the_same_rows_give_the_same_model(data: Path, tmp_path: Path) -> None:
    rows = make_rows()
    lines, parquet = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    lines.write_text("".join(f"{json.dumps({k: v for k, v in row.items() if v is not None})}\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), parquet, row_group_size=70)
    artifacts = [trained(path, tmp_path) for path in (data, lines, parquet)]
    first = artifacts[0]
    for other in artifacts[1:]:
        assert other.content_sha256 == first.content_sha256
        assert other.manifest.model_copy(update={"provenance": {}}) == first.manifest.model_copy(
            update={"provenance": {}}
        )


def test_the_size_of_blocks_changes_no_bit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out rows, statistics, terms and weights are the same if rows are read a few at a time."""
    whole = trained(data, tmp_path, "--seed", "3")
    monkeypatch.setattr(csv_table, "ROW_BYTES_MAX", 1 << 10)
    again = trained(data, tmp_path, "--seed", "3")
    assert again.manifest == whole.manifest
    assert again.content_sha256 == whole.content_sha256
    assert trained(data, tmp_path, "--seed", "4").manifest.metrics != whole.manifest.metrics


def test_statistics_are_of_the_rows_that_are_trained_on(tmp_path: Path) -> None:
    """With the last rows held out, their numbers, values and words are in no field."""
    rows = make_rows()
    for row in rows[-40:]:
        row |= {"size": 1e6, "shape": "later", "words": "later later words"}
    artifact = trained(write_csv(tmp_path / "rows.csv", rows), tmp_path, "--hold-out", "last")
    fields = {field["name"]: field for field in artifact.manifest.describe_fields()}
    sizes = np.array([row["size"] for row in rows[:-40] if row["size"] is not None])
    assert fields["size"]["mean"] == pytest.approx(sizes.mean(), rel=1e-12)
    assert fields["size"]["scale"] == pytest.approx(sizes.std(), rel=1e-12)
    assert fields["shape"]["values"] == ["flat", "long", "round"]
    assert artifact.row_encoder is not None
    assert "later" not in list(artifact.row_encoder.terms["words"])
    assert artifact.manifest.training is not None
    assert artifact.manifest.training.rows == 360
    assert artifact.manifest.metrics["held_out_rows"] == 40


def test_support_is_the_sum_of_squares_of_each_column(data: Path, tmp_path: Path) -> None:
    artifact = trained(data, tmp_path, "--hold-out", "last")
    assert artifact.row_encoder is not None
    rows = [{k: v for k, v in row.items() if k not in {"label", "constant"}} for row in make_rows()[:360]]
    X = artifact.row_encoder.encode_objects(rows).rows.to_matrix(artifact.n_features)
    np.testing.assert_allclose(artifact.tensors["support"], (X**2).sum(axis=0), rtol=1e-5)


def test_a_dry_run_writes_the_fields_alone(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is a list to edit; --fields takes it, and columns that are not in it do not count."""
    monkeypatch.chdir(tmp_path)
    done = run_command("train", data, "--label", "label", "--dry-run")
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["fields.json"]
    for word in ("size", "number", "shape", "category", "words", "left out", "it has one value"):
        assert word in done.stdout
    fields = json.loads((tmp_path / "fields.json").read_text())
    assert [field["name"] for field in fields["fields"]] == ["size", "shiny", "shape", "words"]
    assert fields["left_out"] == {"constant": "it has one value"}
    same, default = trained(data, tmp_path, "--fields", "fields.json"), trained(data, tmp_path)
    assert same.content_sha256 == default.content_sha256
    edited = [
        {"name": "size", "kind": "number", "mean": 1.0, "missing": {"value": 0.5}},
        {"name": "shape", "kind": "category", "values": ["flat", "square"], "unknown": "other"},
        {"name": "constant", "kind": "category"},
        {"name": "words", "kind": "text", "chars": [1, 2], "bits": 10},
        {"name": "both", "kind": "cross", "fields": ["shape", "constant"], "bits": 4},
    ]
    (tmp_path / "fields.json").write_text(json.dumps(edited))
    artifact = trained(data, tmp_path, "--fields", "fields.json")
    described = artifact.manifest.describe_fields()
    assert described[0]["mean"] == 1.0
    assert described[0]["scale"] != 1.0
    assert described[1] == edited[1]
    assert described[2]["values"] == [7]
    assert artifact.has_sparse_rows
    assert artifact.manifest.others is None


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ("{", "the file of fields is no JSON"),
        ("[]", "the fields cannot be used: Tuple should have at least 1 item after validation, not 0"),
        ('{"a": 1}', "the file of fields must have a list of fields"),
        ('[{"name": "size"}]', "the fields cannot be used: field 0: "),
        ('[{"name": "size", "kind": "number", "clip": -1}]', "the fields cannot be used: field 0: clip of number: "),
        ('[{"name": "label", "kind": "category"}]', 'the column "label" has the labels or the weights'),
        ('[{"name": "nowhere", "kind": "number"}]', 'the file has no column "nowhere"; its columns are "size", '),
        ('[{"name": "shape", "kind": "number"}]', 'the values of "shape" are not all numbers; that of row 0 is none'),
        ('[{"name": "words", "kind": "vector", "size": 2}]', 'the values of "words" are not all lists of as many'),
    ],
)
def test_fields_that_cannot_be_used_are_refused(data: Path, tmp_path: Path, fields: str, sentence: str) -> None:
    (tmp_path / "fields.json").write_text(fields)
    assert refusal(data, tmp_path, "--fields", tmp_path / "fields.json").startswith(sentence)


def test_a_column_that_turns_to_text_in_the_last_row_is_no_number(tmp_path: Path) -> None:
    """Types are those of all rows: the column is a category, and the table names the row."""
    rows = make_rows(300)
    rows[-1]["size"] = "unknown"
    data = write_csv(tmp_path / "rows.csv", rows)
    done = train(data, tmp_path)
    assert done.returncode == 0
    assert "most values are numbers; that of row 299 is none" in " ".join(done.stdout.split())
    kinds = {field["name"]: field["kind"] for field in _manifest(tmp_path)["fields"]}
    assert kinds["size"] == "category"
    (tmp_path / "fields.json").write_text('[{"name": "size", "kind": "number"}]')
    sentence = train(data, tmp_path, "--fields", tmp_path / "fields.json").stderr.splitlines()[-1]
    assert sentence == 'softstep: the values of "size" are not all numbers; that of row 299 is none'


def test_a_label_that_occurs_once_is_a_class_or_is_left_out(tmp_path: Path) -> None:
    """In a row that is trained on it is a class; in a row that is held out no model knows it."""
    for row, count in ((0, 4), (399, 3)):
        rows = make_rows()
        rows[row]["label"] = "once"
        artifact = trained(write_csv(tmp_path / "rows.csv", rows), tmp_path, "--hold-out", "last")
        assert len(artifact.manifest.classes) == count
        assert artifact.manifest.metrics["held_out_rows"] == (40 if count == 4 else 39)


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = make_rows()
    for i in (0, 7, 399):
        rows[i]["label"] = None
    data = write_csv(tmp_path / "rows.csv", rows)
    done = train(data, tmp_path, "--hold-out", "last")
    assert "3 without a label are left out" in done.stdout
    manifest = _manifest(tmp_path)
    assert manifest["training"]["rows"] == 358
    assert manifest["metrics"]["held_out_rows"] == 39
    assert "3 rows without a label" in (tmp_path / "models" / "toy" / "1" / "card.md").read_text()


def test_numbers_with_separators_and_codes_stay_texts(tmp_path: Path) -> None:
    rows = [{"price": f"{i % 7},000", "code": f"0{i % 9}067", "label": "ab"[i % 2]} for i in range(200)]
    artifact = trained(write_csv(tmp_path / "rows.csv", rows), tmp_path)
    fields = {field["name"]: field for field in artifact.manifest.describe_fields()}
    assert fields["price"]["values"][:2] == ["0,000", "1,000"]
    assert fields["code"]["values"][:2] == ["00067", "01067"]


def test_several_labels_of_a_row_make_a_multilabel_model(tmp_path: Path) -> None:
    """Lists in JSON and Parquet, and values with a separator in CSV, give the same model."""
    random = np.random.default_rng(1)
    rows = []
    for _ in range(300):
        marks = random.random(3) < 0.4
        label = [color for color, mark in zip(COLORS, marks, strict=True) if mark]
        rows.append({"x": float(np.round(marks[0] + random.normal() / 4, 3)), "y": float(marks[1]), "label": label})
    data = write_csv(tmp_path / "rows.csv", [{**row, "label": " ; ".join(row["label"])} for row in rows])
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    first = trained(data, tmp_path, "--label-separator", ";")
    assert first.manifest.head == "multilabel"
    assert first.manifest.classes == ("blue", "green", "red")
    assert first.manifest.metrics["micro_f1"] > 0.6
    for name in ("rows.jsonl", "rows.parquet"):
        assert trained(tmp_path / name, tmp_path).content_sha256 == first.content_sha256


def test_a_network_is_trained(data: Path, tmp_path: Path) -> None:
    artifact = trained(data, tmp_path, "--hidden", "8,4")
    assert [layer.activation for layer in artifact.manifest.layers][-1] == "identity"
    assert len(artifact.manifest.layers) == 3
    assert "Heaviest" not in (tmp_path / "models" / "toy" / "1" / "card.md").read_text()


def test_weights_of_rows_count_as_repeated_rows(tmp_path: Path) -> None:
    """A row of weight 2 is two rows to the fit, and one of weight 0 is none."""
    rows = [{"x": row["size"], "label": row["label"], "w": i % 3} for i, row in enumerate(make_rows(360))]
    fields = tmp_path / "fields.json"
    fields.write_text('[{"name": "x", "kind": "number", "mean": 1, "scale": 2}]')
    options = ("--fields", fields, "--hold-out", "last")
    weighted = trained(write_csv(tmp_path / "w.csv", rows), tmp_path, *options, "--weight", "w")
    repeated = [row for row in rows[:324] for _ in range(row["w"])] + rows[324:324]
    rest = [repeated[0]] * round(len(repeated) / 9)  # held out, and so without influence
    equal = trained(write_csv(tmp_path / "r.csv", repeated + rest), tmp_path, *options)
    np.testing.assert_allclose(equal.weights, weighted.weights, rtol=2e-4, atol=1e-5)


def test_balanced_classes_have_the_same_weight(tmp_path: Path) -> None:
    """Without any information the bias is that of classes of the same size."""
    rows = [{"x": i % 5, "label": "rare" if i % 10 == 0 else "often"} for i in range(1000)]
    data = write_csv(tmp_path / "rows.csv", rows)
    probabilities = []
    for more in ((), ("--balance",)):
        artifact = trained(data, tmp_path, *more, "--c", "1e-6")
        probabilities.append(build_model(artifact).predict(np.zeros((1, 1), np.float32))[0, 1])
    assert probabilities[0] == pytest.approx(0.1, abs=0.02)
    assert probabilities[1] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("content", "more", "sentence"),
    [
        ("", (), "the file is empty"),
        ("a,label\n", (), "the file has no rows"),
        ("a,b\n1,2\n", (), 'the file has no column "label"; its columns are "a", "b"'),
        ("a,label\n1,\n2,\n", (), "no row that is trained on has a label"),
        ("a,label\n1,x\n2,x\n", (), "all rows that are trained on have one label; a model needs at least two classes"),
        ("a,label\n1,x\n1,y\n", (), "no column can be a field; name some with --fields"),
        ("a,label,a\n1,x,2\n", (), 'the header has the name "a" more than once'),
        ("a,label\n1,x\n2,y\n1,x\n", ("--weight", "w"), 'the file has no column "w"; its columns are "a", "label"'),
        ("a,w,label\n1,-1,x\n9,1,y\n1,1,x\n", ("--weight", "w"), 'row 0: the weight in "w" must be a number of at '),
        ("a,label\n1,x\n9,y\n1,x\n", ("--c", "1,2"), "no row is held out to compare several values of C; name one"),
    ],
)
def test_data_that_cannot_be_used_are_refused(
    tmp_path: Path, content: str, more: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "rows.csv").write_text(content)
    assert refusal(tmp_path / "rows.csv", tmp_path, *more).startswith(sentence)


def test_texts_that_are_too_long_are_refused_with_their_row(tmp_path: Path) -> None:
    rows = [{"words": "a b c", "label": "xy"[i % 2]} for i in range(30)]
    rows[17]["words"] = "word " * 300_000
    (tmp_path / "fields.json").write_text('[{"name": "words", "kind": "text", "words": [1, 1], "bits": 8}]')
    data = write_csv(tmp_path / "rows.csv", rows)
    sentence = refusal(data, tmp_path, "--fields", tmp_path / "fields.json")
    assert sentence == 'row 17: "words" has more than 1048576 characters; shorten it'


def test_a_full_disk_is_one_sentence(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real error of the system, from a device that is always full."""
    monkeypatch.setattr("tempfile.TemporaryFile", partial(open, "/dev/full", "r+b", buffering=0))
    assert refusal(data, tmp_path) == "disk error: No space left on device"


def test_a_killed_training_leaves_nothing(tmp_path: Path) -> None:
    """SIGKILL while the last file of the version is written: no version, and the next run is not disturbed."""
    data = write_csv(tmp_path / "rows.csv", make_rows(3000))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    argv = [sys.executable, "-m", "service", "train", data, "--label", "label", "--name", "toy"]
    more = ["--models", tmp_path / "models", "--c", "1,2,3,4,5,6,7,8,9,10"]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen([*argv, *more], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("C 10"):
            time.sleep(0)
        process.send_signal(signal.SIGKILL)
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "models").exists()


def test_trainings_at_the_same_time_write_versions_of_their_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another training takes the number in the moment before the write; this one takes the next."""
    folders = iter([tmp_path / "models" / "toy" / "1", tmp_path / "models" / "toy" / "2"])
    trained(data, tmp_path)
    monkeypatch.setattr(command, "next_version_folder", lambda *_: next(folders))
    assert train(data, tmp_path).stdout.endswith("toy/2\n")


def test_vectors_of_parquet_and_of_json_give_the_same_model(tmp_path: Path) -> None:
    """With and without gaps; Parquet's are read without an object for each number."""
    random = np.random.default_rng(5)
    rows: list[Row] = []
    for i in range(300):
        vector = np.round(random.normal(i % 3, 1, 4), 3).tolist()
        rows.append({"full": vector, "gaps": None if i % 7 == 0 else vector[::-1], "label": COLORS[i % 3]})
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    table = pa.Table.from_pylist(rows)
    lists = pa.list_(pa.float64(), 4)
    fixed = table.set_column(0, "full", table["full"].cast(lists)).set_column(1, "gaps", table["gaps"].cast(lists))
    artifacts = [trained(tmp_path / "rows.jsonl", tmp_path)]
    for form in (table, fixed):
        pq.write_table(form, tmp_path / "rows.parquet")
        artifacts.append(trained(tmp_path / "rows.parquet", tmp_path))
    assert {artifact.content_sha256 for artifact in artifacts} == {artifacts[0].content_sha256}
    assert [field["kind"] for field in artifacts[0].manifest.describe_fields()] == ["vector", "vector"]
    assert artifacts[0].n_features == 9


def test_training_options_are_checked(data: Path, tmp_path: Path) -> None:
    for more in (("--c", "0"), ("--c", "x"), ("--hidden", "0"), ("--seed", "-1"), ("--hold-out", "first")):
        assert train(data, tmp_path, *more).returncode == 2
    assert "a name has 1 to 64" in run_command("train", data, "--label", "label", "--name", "../toy").stderr
    assert "name the model with --name" in run_command("train", data, "--label", "label").stderr
    assert data_table.BLOCK_ROWS_MAX % 4096 == 0


def _manifest(tmp_path: Path) -> dict[str, Any]:
    folder = max((tmp_path / "models" / "toy").iterdir(), key=lambda path: int(path.name))
    manifest: dict[str, Any] = json.loads((folder / "model.json").read_text())
    return manifest
