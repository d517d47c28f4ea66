"""`softstep import`: what it prints and writes, and that nothing is written if the proof fails."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import command_line as command
from service.store.artifact.artifact import Artifact
from service.store.artifact.artifact_loader import load_artifact
from tests.support.paths import ROOT
from tests.support.processes import SECONDS

GOLDEN = ROOT / "tests" / "golden" / "vowpal"
VOWPAL: dict[str, Any] = json.loads((GOLDEN / "rows.json").read_text())
NETWORK = {"w": np.array([[0.5, -1.0], [0.25, 2.0], [0.0, 1.0]]), "b": np.array([0.5, -0.5])}


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Return an .npz file of one layer."""
    path = tmp_path / "network.npz"
    np.savez(path, **NETWORK)
    return path


def load(path: Path) -> Artifact:
    """Load a version with the limits that a service has by default."""
    return load_artifact(path)


def write_rows(folder: Path, name: str) -> list[str]:
    """Write the golden rows and probabilities of a model of Vowpal Wabbit; return the arguments that name them."""
    golden, rows, expected = VOWPAL[name], folder / "rows.jsonl", folder / "expected.csv"
    rows.write_text("".join(json.dumps(row) + "\n" for row in golden["rows"]))
    with expected.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([str(k + 1) for k in range(3)])
        writer.writerows(golden["probabilities"])
    return ["--rows", str(rows), "--expected", str(expected)]


def test_it_writes_the_next_version(tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The result names the folder, the largest difference, and the fields; the hash of the source is kept."""
    models = tmp_path / "models"
    arguments = ["import", str(network), "--name", "small", "--models", str(models), "--layers", "w,b"]
    for version in ("1", "2"):
        assert command.main([*arguments, "--classes", "no,yes", "--features", "x,y,z"]) == 0
        output = capsys.readouterr().out.splitlines()
        folder = models / "small" / version
        assert output[0] == f"{folder}: softmax, 2 classes, 3 columns"
        assert output[1].startswith("largest difference ")
        assert output[1].endswith(" in 200 rows, compared with NumPy in float64, on the tensors of the file")
        assert output[2] == "  features  numbers   3"
        manifest = load(folder).manifest
        assert (manifest.classes, manifest.features) == (("no", "yes"), ("x", "y", "z"))
        assert len(manifest.provenance["source_sha256"]) == 64
        assert float(manifest.provenance["largest_difference"]) < 1e-5
    assert sorted(path.name for path in (models / "small").iterdir()) == ["1", "2"]


def test_probabilities_of_a_file_are_the_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Vowpal Wabbit is not needed if its probabilities are there."""
    models = tmp_path / "models"
    source = [str(GOLDEN / "oaa3.names.txt"), "--name", "oaa", "--models", str(models)]
    arguments = ["import", *source, *write_rows(tmp_path, "oaa3"), "--training-rows", "60", "--json"]
    assert command.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows_compared"] == 40
    assert result["largest_difference"] < 1e-5
    assert result["compared_with"] == "expected probabilities"
    assert [field["name"] for field in result["fields"]] == ["user", "item", "features", "user*item"]
    artifact = load(models / "oaa" / "1")
    manifest = artifact.manifest
    assert manifest.training is not None
    assert manifest.training.rows == 60
    encoder = artifact.row_encoder
    assert encoder is not None
    X = encoder.encode_objects(VOWPAL["oaa3"]["rows"]).rows.to_matrix(encoder.n_columns)
    np.testing.assert_allclose(artifact.tensors["support"], (X**2).sum(axis=0) * 60 / 40, rtol=1e-5)
    assert manifest.provenance["source"] == "Vowpal Wabbit 9.11.9"
    assert len(manifest.examples or ()) == 8
    card = (models / "oaa" / "1" / "card.md").read_text()
    assert card.startswith("# oaa\n\n|  |  |\n| --- | --- |\n| source | Vowpal Wabbit 9.11.9 |\n")
    for line in (
        f"| SHA-256 of the source | `{manifest.provenance['source_sha256']}` |",
        "| model | ovr, 2,048 columns, float32 |",
        "| classes | 1, 2, 3 |",
        "| trained on | 60 rows |",
        "| compared with | expected probabilities |",
        "| `user*item` | cross | 512 | of user and item |",
    ):
        assert line in card.splitlines()
    assert card.count("\n| {") == 3


def test_rows_give_the_statistics_of_training(tmp_path: Path) -> None:
    """A network on numbers then has them as its input stage; the number of all rows is that of the option."""
    network, rows, models = tmp_path / "network.npz", tmp_path / "rows.csv", tmp_path / "models"
    np.savez(network, **NETWORK, v=np.array([[1.0, -1.0], [2.0, 0.5]]), c=np.array([0.0, 1.0]))
    rows.write_text("x,y,z\n100,1,5\n300,2,5\n")
    arguments = ["import", str(network), "--name", "deep", "--models", str(models), "--layers", "w,b:tanh,v,c"]
    more = ["--features", "x,y,z", "--weight-rows", "inputs", "--rows", str(rows), "--training-rows", "1000"]
    assert command.main([*arguments, *more]) == 0
    manifest = load(models / "deep" / "1").manifest
    assert manifest.training is not None
    assert manifest.stage is not None
    assert manifest.training.rows == 1000
    assert manifest.stage.clip is None
    for record in (manifest.training, manifest.stage):
        assert (record.mean, record.scale) == ((200, 1.5, 5), (100, 0.5, 1))


def test_a_difference_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One changed probability of 120 is enough."""
    models = tmp_path / "models"
    arguments = ["import", str(GOLDEN / "oaa3.names.txt"), "--name", "oaa", "--models", str(models)]
    given = write_rows(tmp_path, "oaa3")
    expected = Path(given[3])
    lines = expected.read_text().splitlines()
    cells = lines[7].split(",")
    cells[1] = str(float(cells[1]) + 2e-4)
    expected.write_text("\n".join([*lines[:7], ",".join(cells), *lines[8:]]))
    assert command.main([*arguments, *given]) == 1
    error = capsys.readouterr().err
    assert error.startswith('softstep: the probability of the class "2" of row 6 differs from the source by 0.0002, ')
    assert not models.exists()


def test_a_model_that_the_service_would_refuse_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limits of the settings hold, as they do when the model is loaded."""
    monkeypatch.setenv("SOFTSTEP_COLUMNS_MAX", "2047")
    models = tmp_path / "models"
    arguments = ["import", str(GOLDEN / "oaa3.names.txt"), "--name", "oaa", "--models", str(models)]
    assert command.main([*arguments, *write_rows(tmp_path, "oaa3")]) == 1
    assert capsys.readouterr().err == "softstep: the fields have more than 2047 columns, which is the limit\n"
    assert not models.exists()


def test_rows_are_csv_or_json_lines(tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both give the same rows; they are compared beside the generated ones, or with probabilities of a file."""
    (tmp_path / "rows.csv").write_text("x,y,z\n1,2.5,-3\n0,0,0\n")
    (tmp_path / "rows.jsonl").write_text('{"x": 1, "y": 2.5, "z": -3}\n\n{"z": 0, "x": 0, "y": 0}\n')
    Z = np.array([[1, 2.5, -3], [0, 0, 0]]) @ NETWORK["w"] + NETWORK["b"]
    P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"1": p[1], "0": p[0]}) + "\n" for p in P.tolist()))
    arguments = ["import", str(network), "--name", "a", "--models", str(tmp_path / "m"), "--layers", "w,b"]
    arguments += ["--features", "x,y,z", "--json"]
    for name in ("rows.csv", "rows.jsonl"):
        rows = ["--rows", str(tmp_path / name)]
        for more, count in ((rows, 202), ([*rows, "--expected", str(tmp_path / "p.jsonl")], 2)):
            assert command.main([*arguments, *more]) == 0
            result = json.loads(capsys.readouterr().out)
            assert result["rows_compared"] == count
            assert result["largest_difference"] < 1e-6


@pytest.mark.parametrize(
    ("content", "more", "sentence"),
    [
        ("x,y\n1,2\n", (), 'a row is no row of the model: Row 0: "z" is missing, and must be a number.'),
        ("x,y,z\n1,2\n", (), "line 2 of the rows has 2 cells, not 3"),
        ("x,x,z\n1,2,3\n", (), "the first line of the rows must have the names of the columns, each once"),
        ('{"x": 1}\n[1]\n', (), "line 2 of the rows is no JSON object"),
        ("{" * 100_000, (), "line 1 of the rows is no JSON object"),
        ('x,y,z\n1,2,"3\n', (), "line 2 of the rows is not valid CSV"),
        (b"x,y,z\n1,2,\xff\n", (), "the rows are not UTF-8"),
        ("x,y,z\n1,2,3\n", ("0,2\n1,0\n",), 'line 2 of the probabilities has no class "1"'),
        ("x,y,z\n1,2,3\n", ("0,1\n1,high\n",), "line 2 of the probabilities has no number for a class"),
        ("x,y,z\n1,2,3\n", ("0,1\n1,0\n1,0\n",), "the source must answer 1 rows with 2 probabilities each"),
    ],
)
def test_files_of_rows_are_checked(  # noqa: PLR0917  # three fixtures
    tmp_path: Path,
    network: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | bytes,
    more: tuple[str, ...],
    sentence: str,
) -> None:
    """The sentence has the line; nothing is written."""
    rows, expected, models = tmp_path / "rows", tmp_path / "expected", tmp_path / "models"
    rows.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = ["import", str(network), "--name", "a", "--models", str(models), "--layers", "w,b", "--rows", str(rows)]
    arguments += ["--features", "x,y,z"]
    if more:
        expected.write_text(more[0])
        arguments += ["--expected", str(expected)]
    assert command.main(arguments) == 1
    assert capsys.readouterr().err == f"softstep: {sentence}\n"
    assert not models.exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--name", "A b"], "--name must be a-z, 0-9, dots, hyphens and underscores, up to 64 characters"),
        (["--training-rows", "0"], "--training-rows must be a whole number from 1"),
        (
            ["--training-rows", "9"],
            "--training-rows needs the mean and scale of each number; the source lacks them, so add --rows",
        ),
        (["--expected", "p.csv"], "--expected has the probabilities of the rows in --rows; give both"),
        (["--rows", "missing.csv"], "the source cannot be read: No such file or directory"),
    ],
)
def test_arguments_are_checked(
    tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str], more: list[str], sentence: str
) -> None:
    """One sentence, and nothing is written."""
    models = tmp_path / "models"
    arguments = ["import", str(network), "--name", "a", "--models", str(models), "--layers", "w,b", *more]
    assert command.main(arguments) == 1
    assert capsys.readouterr().err == f"softstep: {sentence}\n"
    assert not models.exists()


def test_neither_reading_nor_help_imports_packages_of_the_extra(network: Path, tmp_path: Path) -> None:
    """Layers and Vowpal Wabbit need what serving needs; --help does not even need NumPy."""
    script = (
        "import sys; from service.command_line import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'sklearn', 'skops', 'onnx', 'onnxruntime', 'pyarrow', 'fastapi'} & set(sys.modules)))"
    )
    arguments = ["import", str(network), "--name", "a", "--models", str(tmp_path / "m"), "--layers", "w,b"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_scikit_learn_is_asked_in_a_process_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A .skops file is read without it, and it answers for the proof."""
    source = min((ROOT / "tests" / "golden" / "skops" / "1.9").glob("*.skops"))
    assert command.main(["import", str(source), "--name", "a", "--models", str(tmp_path / "m"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["compared_with"] == "scikit-learn"
    assert result["rows_compared"] >= 200
    assert result["largest_difference"] < 1e-5
