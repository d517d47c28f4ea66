"""Train models with other libraries and import them; train.py calls `import_model`.

    model        trained with                         imported
    wine         scikit-learn, written by skl2onnx    ONNX: docs/examples/wine.onnx
    characters   scikit-learn                         in memory, by `artifact_of`
    flares       Vowpal Wabbit                        as text: docs/examples/flares.txt

    softstep import docs/examples/wine.onnx --name wine        makes the same weights

With `sources` the two files are trained again, in environments of their own below build. Installing them needs the
network, once; so does Vowpal Wabbit for its proof. Held-out rows give the metrics, and both sides answer them too.
"""

import hashlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from imported_data import HELD_OUT, IMPORTED_DATA, SEED, ImportedData, Row
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits

from loadtest.environments import ROOT, VOWPAL, Environment, NotAvailableError
from service.convert.import_card import write_card
from service.convert.proof import feature_encoder, prove
from service.convert.source_kinds import read_source
from service.convert.source_options import ReadSource, SourceOptions
from service.convert.training_rows import add_training_rows
from service.convert.vowpal.vowpal_fields import VowpalModel
from service.convert.vowpal.vowpal_source import VowpalSource
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.model_factory import build_model
from softstep import artifact_of

HERE = Path(__file__).parent
SOURCES = {"wine": ROOT / "docs" / "examples" / "wine.onnx", "flares": ROOT / "docs" / "examples" / "flares.txt"}
GRAPHS = Environment("graphs", (ROOT / "loadtest" / "peers" / "graphs.txt",))
# A sum that is split over threads would vary with the number of processors.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# Log losses in three-fold cross-validation on the training rows: 0.089 at 1, 0.058 at 3, 0.042 at 10, 0.037 at 30 and
# 0.038 at 100.
C = 30.0
# Words, and pairs of them, that fewer names have are left out.
NAMES_MIN = 3


def import_model(name: str, out: Path, *, sources: bool = False) -> Artifact:
    """Import one model of `IMPORTED_DATA`, write it with its card as version 1, and return it.

    Args:
        name: Its name.
        out: The models directory.
        sources: Whether to train its file in `SOURCES` again before.
    """
    data = IMPORTED_DATA[name]()
    if sources and name in SOURCES:
        TRAIN[name](data, SOURCES[name])
    artifact = prove_characters(data) if name == "characters" else prove_file(name, data)
    metrics = measure(artifact, data.held_out_rows, data.held_out_y)
    how = {
        "split": f"{HELD_OUT:.0%} of the rows held out, stratified, seed {SEED}",
        "script": "models/train.py",
    }
    provenance = data.origin | how | artifact.manifest.provenance
    update = {"provenance": provenance, "metrics": metrics}
    described = replace(artifact, manifest=artifact.manifest.model_copy(update=update))
    write_artifact(out / name / "1", described, overwrite=True, further=write_card(name, described))
    return described


def prove_file(name: str, data: ImportedData) -> Artifact:
    """Return the artifact of a file in `SOURCES`, compared with onnxruntime or Vowpal Wabbit."""
    path, read = SOURCES[name], convert_file(name, data)
    source = read.source
    if name == "flares":
        source = VowpalSource(VowpalModel(path, classes=data.classes), str(build(VOWPAL)))
    if source is None:
        raise SystemExit(f"the source of {name} cannot be asked")
    known = {"source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "compared_with": read.compared_with}
    model = replace(read.model, provenance={**read.model.provenance, **known})
    return prove(model, source, data.held_out_rows).artifact


def convert_file(name: str, data: ImportedData) -> ReadSource:
    """Return the model of a file in `SOURCES`, with the statistics of the rows that it was trained on."""
    features = tuple(data.rows[0]) if name == "wine" else ()
    read = read_source(SOURCES[name], SourceOptions(classes=data.classes, features=features))
    return replace(read, model=add_training_rows(read.model, data.trained_rows))


def prove_characters(data: ImportedData) -> Artifact:
    """Return the artifact of a pipeline of scikit-learn that is trained on the names of characters."""
    return artifact_of(fit_characters(data), rows=data.held_out_rows, training=data.trained_rows)


@threadpool_limits.wrap(limits=1)
def fit_characters(data: ImportedData) -> Pipeline:
    """Return the fitted pipeline."""
    columns = ColumnTransformer(
        [
            ("words", TfidfVectorizer(ngram_range=(1, 2), min_df=NAMES_MIN), "name"),
            ("kinds", OneHotEncoder(handle_unknown="ignore"), ["width", "direction"]),
        ]
    )
    labels = np.array(data.classes)[data.trained_y]
    pipeline = make_pipeline(columns, LogisticRegression(C=C, tol=1e-8, max_iter=5000))
    return pipeline.fit(pd.DataFrame(data.trained_rows), labels)


def train_wine(data: ImportedData, path: Path) -> None:
    """Write the graph of a network that is trained on the wines."""
    X = np.array([list(row.values()) for row in data.trained_rows])
    with TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.npz"
        np.savez(rows, X=X, y=data.trained_y)
        _run(GRAPHS, "wine_graph.py", rows, path)


def train_flares(data: ImportedData, path: Path) -> None:
    """Write the text of a model that is trained on the sunspots."""
    labeled = zip(data.trained_rows, data.trained_y.tolist(), strict=True)
    lines = [f"{'1' if label else '-1'} {_to_line(row)}\n" for row, label in labeled]
    with TemporaryDirectory() as scratch:
        examples = Path(scratch) / "examples.txt"
        examples.write_text("".join(lines), encoding="utf-8")
        _run(VOWPAL, "flares_text.py", examples, path)


TRAIN: dict[str, Callable[[ImportedData, Path], None]] = {"wine": train_wine, "flares": train_flares}


def _to_line(row: Row) -> str:
    """Return a row in Vowpal Wabbit's text format."""
    return " ".join(f"|{space} {' '.join(names)}" for space, names in row.items())


def _run(environment: Environment, script: str, *arguments: Path) -> None:
    command = [str(build(environment)), str(HERE / script), *map(str, arguments)]
    subprocess.run(command, check=True, env={**os.environ, **ONE_THREAD})  # noqa: S603  # a script of ours


def build(environment: Environment) -> Path:
    """Return the interpreter of an environment, which is built unless it exists."""
    try:
        return environment.ensure()
    except NotAvailableError as error:
        raise SystemExit(f"the environment {environment.name}: {error}") from None


def predict(artifact: Artifact, rows: list[Row]) -> NDArray[np.float64]:
    """Return the probabilities (B, C) of rows as the service computes them."""
    encoder = artifact.row_encoder or feature_encoder(artifact, scaled=False)
    encoded = encoder.to_model_rows(encoder.encode_objects(rows).rows, artifact.weights.dtype)
    X: Any = encoded if artifact.has_sparse_rows else encoded.to_matrix(encoder.n_columns)
    return np.asarray(build_model(artifact).predict(X), np.float64)


def measure(artifact: Artifact, rows: list[Row], y: NDArray[np.int64]) -> dict[str, float]:
    """Return the metrics of held-out rows to six digits: the last bits of a sum may vary between processors."""
    P = predict(artifact, rows)
    loss = -np.log(P[np.arange(len(y)), y]).mean()
    metrics = {"held_out_rows": len(y), "log_loss": loss, "accuracy": (P.argmax(axis=1) == y).mean()}
    return {name: round(float(value), 6) for name, value in metrics.items()}
