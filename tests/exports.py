"""Export models as ONNX and as files, and compare what reads them with the service; writes docs/exports.md.

    python -m tests.exports [--write] [--count N]

A random model follows from its seed alone. Each one answers 200 generated rows in three other ways: its ONNX file by
onnxruntime, that file imported again, and its two files by the scripts of docs/examples, which need NumPy alone.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime

from service.convert.graphs.graph_export import input_forms, make_onnx
from service.convert.graphs.graph_file import is_expressible
from service.convert.graphs.graph_session import OnnxSession
from service.convert.graphs.graph_source import read_graph
from service.convert.proof import feature_encoder
from service.errors import ConversionError
from service.fields.generated_rows import RowGenerator
from service.learn.state import LearnerState
from service.softmax.arrays import Doubles
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from tests.support import mixture_states
from tests.support.converted_models import answer_in_float64, answer_rows, to_imported_row
from tests.support.field_artifacts import field_artifact
from tests.support.field_options import OPTIONS
from tests.support.imported_models import IMPORTED_NAMES
from tests.support.model_artifacts import make_artifact
from tests.support.paths import ROOT, SHIPPED
from tests.support.plain_fields import KINDS
from tests.support.scripts import load_script

Row = dict[str, Any]
Answers = Callable[[list[Row]], Any]
PAGE: Final = ROOT / "docs" / "exports.md"
TARGET: Final = 1e-6
ROWS: Final = 200
# Random models of each kind.
COUNT: Final = 60
BYTES_MAX: Final = 1 << 24
HEADS: Final = ("softmax", "sigmoid", "multilabel", "ovr")
DTYPES: Final = ("float64", "float32")
# A row of a model in float32 is compared with others in float32 if float32 itself is off by at most this.
STABLE: Final = 1e-7
WAYS = ONNXRUNTIME, IMPORTED, NUMPY = "onnxruntime", "imported again", "NumPy alone"
# A mean with which numbers overflow float32 in graphs.
HUGE: Final = -1e300
read_model = load_script("docs/examples/read_model.py")
read_mixture = load_script("docs/examples/read_mixture.py")


class Comparison(NamedTuple):
    """The answers of a model in the other ways.

    Attributes:
        dtype: The dtype of the model.
        ways: By way, the number of rows that were compared and the largest difference of a probability.
        left_out: The number of rows that float32 itself decides.
        rounding: The largest difference of the service's float32 and float64.
    """

    dtype: str
    ways: dict[str, tuple[int, float]]
    left_out: int
    rounding: float


def compare(artifact: Artifact, folder: Path, seed: int, n_rows: int = ROWS) -> Comparison:
    """Return how far the other ways are from the service on generated rows."""
    encoder = artifact.row_encoder or feature_encoder(artifact, scaled=True)
    rows = RowGenerator(encoder, seed).make_rows(0, n_rows)
    expected, exact = answer_rows(artifact, rows), answer_in_float64(artifact, rows)
    rounding = np.abs(expected - exact).max(axis=1)
    off = np.abs(script_answers(artifact, folder)(rows) - exact)
    ways = {NUMPY: (len(rows), float(off.max()))}
    graphs = dict(graph_answers(artifact, folder))
    chosen = [i for i, row in enumerate(rows) if graphs and is_expressible(artifact, row) and rounding[i] <= STABLE]
    for way, answers in graphs.items() if chosen else ():
        off = np.abs(answers([rows[i] for i in chosen]) - expected[chosen])
        ways[way] = len(chosen), float(off.max())
    return Comparison(artifact.manifest.dtype, ways, int((rounding > STABLE).sum()), float(rounding.max()))


def graph_answers(artifact: Artifact, folder: Path) -> Iterator[tuple[str, Answers]]:
    """Yield the ways to ask a model as ONNX, if ONNX can express it."""
    try:
        graph = make_onnx(artifact)
    except ConversionError:
        return
    raw = graph.SerializeToString(deterministic=True)
    yield ONNXRUNTIME, OnnxSession(raw, input_forms(artifact), graph.graph.output[1].name).run
    path = folder / "model.onnx"
    path.write_bytes(raw)
    back = read_graph(path).model.to_artifact(artifact.manifest.dtype)
    yield IMPORTED, lambda rows: answer_rows(back, [to_imported_row(row, back) for row in rows])


def script_answers(artifact: Artifact, folder: Path) -> Answers:
    """Return the way to ask the two files of a model with NumPy alone."""
    write_artifact(folder / "1", artifact, overwrite=True)
    model = (read_model.Model if artifact.manifest.mixture is None else read_mixture.MixtureModel)(folder / "1")

    def predict(rows: list[Row]) -> Doubles:
        names = artifact.column_names
        answered = rows if artifact.row_encoder else [[row[name] for name in names] for row in rows]
        # Numbers of sigmoids overflow to their limits.
        with np.errstate(over="ignore"):
            return np.asarray(model.predict(answered), np.float64)

    return predict


def shipped_models(_: int) -> Iterator[Artifact]:
    """Yield the shipped models. The imported ones were added later, and are last, so the seeds of others stay."""
    names = sorted(path.parent.parent.name for path in SHIPPED.glob("*/1/model.json"))
    for name in sorted(names, key=IMPORTED_NAMES.__contains__):
        yield read_artifact(SHIPPED / name / "1", BYTES_MAX)


def feature_models(count: int) -> Iterator[Artifact]:
    """Yield models of features: every head, with and without hidden layers, stages and calibrations."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        head = HEADS[seed % 4]
        N, C = int(rng.integers(1, 30)), 2 if head == "sigmoid" else int(rng.integers(2, 12))
        more: dict[str, Any] = {"hidden": rng.integers(1, 40, int(rng.integers(0, 4))).tolist()}
        if rng.random() < 0.5:
            mean, scale = rng.normal(0, 3, N), np.exp(rng.normal(0, 1, N))
            more["stage"] = {"mean": mean.tolist(), "scale": scale.tolist(), "clip": float(rng.integers(1, 9))}
        if head in {"softmax", "sigmoid"} and rng.random() < 0.5:
            platt, temperature = {"kind": "platt", "a": 0.7, "b": 0.4}, {"kind": "temperature", "temperature": 1.7}
            more["calibration"] = platt if head == "sigmoid" else temperature
        yield make_artifact(head, N, [f"class {k}" for k in range(C)], DTYPES[seed // 4 % 2], seed=seed, **more)


def field_models(count: int, kinds: Sequence[str]) -> Iterator[Artifact]:
    """Yield models of one to six fields of these kinds with random options."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        fields: list[dict[str, Any]] = []
        chosen = sorted(rng.choice(kinds, int(rng.integers(1, 7))).tolist(), key="cross".__eq__)
        crossed = [f"{kind} {i}" for i, kind in enumerate(chosen) if kind != "cross"]
        for i, kind in enumerate(chosen):
            listed = [
                one for one in OPTIONS[kind] if one.get("mean") != HUGE and ("bits" not in one or "text" in kinds)
            ]
            field = {"name": f"{kind} {i}", "kind": kind, **listed[int(rng.integers(len(listed)))]}
            if kind == "cross" and len(crossed) < 2:
                continue
            if kind == "cross":
                field["fields"] = rng.choice(crossed, 2, replace=False).tolist()
            fields.append(field)
        if not fields:
            continue
        # Rows of hashed columns are sparse, and their models in float32.
        dtype = "float32" if any("bits" in field for field in fields) else DTYPES[seed // 4 % 2]
        yield field_artifact(tuple(fields), head=HEADS[seed % 4], dtype=dtype, seed=seed)


def plain_models(count: int) -> Iterator[Artifact]:
    """Yield models of numbers, booleans, categories and vectors."""
    yield from field_models(count, KINDS)


def other_models(count: int) -> Iterator[Artifact]:
    """Yield models of fields of all kinds."""
    yield from field_models(count, tuple(OPTIONS))


def delta_models(_: int) -> Iterator[Artifact]:
    """Yield trained models with what they have learned from feedback."""
    for name in ("breast-cancer", "iris", "segment", "yeast"):
        state = LearnerState(read_artifact(SHIPPED / name / "1", BYTES_MAX))
        training = state.artifact.manifest.training
        assert training is not None
        X = np.random.default_rng(1).normal(0, 1, (60, state.artifact.n_features))
        X = X * np.array(training.scale) + np.array(training.mean)
        state.fold_rows(X.astype(np.float32), np.arange(60) % len(state.artifact.manifest.classes))
        yield state.export_artifact(list(state.artifact.manifest.classes), {})


def mixture_models(_: int) -> Iterator[Artifact]:
    """Yield learned mixtures of both heads, in both dtypes, of one feature, several and many."""
    for head in ("softmax", "sigmoid"):
        for dtype in DTYPES:
            for N in (1, 6, 600):
                X, labels = mixture_states.make_rows(head, dtype, max(N, 2))
                state = LearnerState(mixture_states.make_artifact(head, rule="mixture", dtype=dtype, n_features=N))
                state.fold_rows(np.ascontiguousarray(X[:120, :N]), labels[:120])
                yield state.export_artifact(list(state.artifact.manifest.classes), {})


# By what the page calls them.
KINDS_OF_MODELS: Final = {
    "shipped": shipped_models,
    "features, with hidden layers, stages and calibrations": feature_models,
    "trained, with what they have learned": delta_models,
    "numbers, booleans, categories and vectors": plain_models,
    "fields of all kinds": other_models,
    "learned mixtures": mixture_models,
}


def compare_all(count: int, n_rows: int = ROWS) -> dict[str, list[Comparison]]:
    """Return the comparisons of all models by their kind, with so many random models of each."""
    found = {}
    for kind, make in KINDS_OF_MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            models = enumerate(make(count))
            found[kind] = [compare(artifact, Path(folder), seed, n_rows) for seed, artifact in models]
    return found


def render(found: dict[str, list[Comparison]]) -> str:
    """Return the page."""
    everything = [one for comparisons in found.values() for one in comparisons]
    rows = [
        f"| {kind} | {dtype} | {len(chosen)} | {' | '.join(describe(chosen, way) for way in WAYS)} |"
        for kind, comparisons in found.items()
        for dtype in DTYPES
        if (chosen := [one for one in comparisons if one.dtype == dtype])
    ]
    worst = {dtype: largest([one for one in everything if one.dtype == dtype]) for dtype in DTYPES}
    graphs = [one for one in everything if ONNXRUNTIME in one.ways]
    return f"""# Exports

Models that leave Softstep, compared with the service. `make exports` writes this page. Each model answers {ROWS}
generated rows: usual values, gaps, unknown categories, and numbers far from the mean. Others answer the same rows:

- **onnxruntime** {onnxruntime.__version__} runs the file of `softstep export --onnx`.
- **imported again**: `softstep import` reads that file, and the service answers with the model that comes out.
- **NumPy alone**: [read_model.py](examples/read_model.py) or [read_mixture.py](examples/read_mixture.py) reads the two
  files of the model. They compute in float64, and are compared with the weights of the service in float64.

Of {len(everything)} models {len(graphs)} can be written as ONNX.

- The largest difference of a probability is {max(worst.values()):.1e}; the target is {TARGET:.0e}.
- For models in float64 the largest difference is {worst["float64"]:.1e}.
- {sum(one.left_out for one in graphs):,} rows of models in float32 are not compared with ONNX, because float32 itself
  moves a probability by more than {STABLE:.0e}, and by {max(one.rounding for one in graphs):.1e} at most.
- onnxruntime adds numbers of float32 in an order of its own. With other seeds, rows of `digits` differed by up to
  1.5e-06, and rows of `segment` by up to 1.2e-06.

Each cell has the number of rows and the largest difference of a probability.

| models | dtype | number | onnxruntime | imported again | NumPy alone |
|---|---|---:|---:|---:|---:|
{chr(10).join(rows)}

ONNX has no operators for texts, bags, hashed categories, crosses and learned mixtures ([export](export.md#onnx)).
"""


def describe(comparisons: Sequence[Comparison], way: str) -> str:
    """Return the number of rows and the largest difference, or none if no model has this way."""
    asked = [one.ways[way] for one in comparisons if way in one.ways]
    return f"{sum(rows for rows, _ in asked):,}, {max(off for _, off in asked):.1e}" if asked else "none"


def largest(comparisons: Sequence[Comparison]) -> float:
    """Return the largest difference of a probability."""
    return max(off for one in comparisons for _, off in one.ways.values())


def main() -> None:
    """Compare all models, and write or print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/exports.md")
    parser.add_argument("--count", type=int, default=COUNT, help="the number of random models of each kind")
    options = parser.parse_args()
    start = time.monotonic()
    found = compare_all(options.count)
    page = render(found)
    if options.write:
        PAGE.write_text(page)
    sys.stdout.write(f"{page}\n{time.monotonic() - start:.0f} s\n")
    worst = largest([one for comparisons in found.values() for one in comparisons])
    if worst > TARGET:
        raise SystemExit(f"a probability is off by {worst:.1e}")


if __name__ == "__main__":
    main()
