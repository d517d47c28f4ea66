"""Measure `softstep train` beside scikit-learn.

    .venv/bin/python loadtest/training.py [T1 T2 T3] [--rounds 3] [--rows 1000000] [--write]

T1  the objective that `fit` reaches with its default tolerance, beside LogisticRegression at tol = 1e-10; labels of
    multilabel rows have a LogisticRegression each
T2  the hashes of three artifacts that `softstep train` writes: twice for this processor, then for each other target;
    each target compiles the kernels into build/determinism
T3  `softstep train` on a Parquet file, and a process that reads it by pyarrow and fits LogisticRegression to the same
    nine tenths of its rows, in turns; both objectives are computed here, on these rows

`--write` keeps the results in docs/benchmarks/train/results.json and writes the page.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import warnings
from pathlib import Path
from statistics import median
from typing import Any, Final

import figures_train
import numpy as np
import pyarrow as pa
import pyarrow.csv
from machine import describe
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tables import figure_rows
from training_speed import measure_speed, train

from service.compiler import BASELINES, TARGET
from service.softmax.fitting import fit
from service.softmax.row_blocks import MemoryBlocks

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "benchmarks" / "train"
KERNELS: Final = ROOT / "build" / "determinism"
SETS: Final = ("iris", "breast-cancer", "digits", "phishing", "segment", "yeast")
STRENGTHS: Final = (0.1, 1.0, 10.0)
WORDS: Final = ("late", "refund", "order", "lost", "parcel", "thanks", "great", "broken", "again", "soon")
TITLE: Final = "Figures of training"
PARTS: Final = ("T1", "T2", "T3")
HEAD: Final = """# Results of training

`loadtest/training.py` writes this page; it explains each figure. Its numbers are ratios of measurements in turns, or
counts.
"""


# T1


def binary_objective(X: np.ndarray, y: np.ndarray, weights: np.ndarray, bias: np.ndarray, C: float) -> float:
    """Return the objective of one logistic regression of labels y (B,) of 0 and 1, weights (N,)."""
    z = X @ weights + bias
    return float((np.logaddexp(0, z) - y * z).sum() + weights @ weights / (2 * C))


def softmax_objective(X: np.ndarray, y: np.ndarray, weights: np.ndarray, bias: np.ndarray, C: float) -> float:
    """Return the objective of a softmax regression, weights (N, K)."""
    Z = X @ weights + bias
    Z -= Z.max(axis=1, keepdims=True)
    return float((np.log(np.exp(Z).sum(axis=1)) - Z[np.arange(len(y)), y]).sum() + (weights**2).sum() / (2 * C))


def compare_objectives(name: str, C: float) -> tuple[float, float]:
    """Return the ratio of the objectives minus 1, and the ratio of the numbers of steps, of one set."""
    data = data_sets().load(name)
    X32 = np.ascontiguousarray(StandardScaler().fit_transform(data.X), np.float32)
    X, y = X32.astype(np.float64), data.y
    several = data.head == "multilabel"
    found = fit(MemoryBlocks(X32, y), data.head, y.shape[1] if several else int(y.max()) + 1, C)
    labels = list(y.T) if several else [y]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lbfgs warns where it cannot reach 1e-10
        peers = [LogisticRegression(C=C, tol=1e-10, max_iter=10**5).fit(X, one) for one in labels]
    steps = found.iterations / max(int(peer.n_iter_[0]) for peer in peers)
    if data.head == "softmax":
        (peer,) = peers
        ours = softmax_objective(X, y, found.weights, found.bias, C)
        return ours / softmax_objective(X, y, peer.coef_.T, peer.intercept_, C) - 1, steps
    ours = sum(binary_objective(X, one, found.weights[:, k], found.bias[k], C) for k, one in enumerate(labels))
    theirs = sum(
        binary_objective(X, one, peer.coef_[0], peer.intercept_[0], C) for one, peer in zip(labels, peers, strict=True)
    )
    return ours / theirs - 1, steps


def data_sets() -> Any:  # noqa: ANN401  # a module
    """Return the module of the shipped models' data."""
    sys.path.insert(0, str(ROOT / "models"))
    return __import__("data_sets")


def measure_objectives() -> dict[str, Any]:
    """Measure T1."""
    each = {}
    for name in SETS:
        for C in STRENGTHS:
            each[f"{name}, C {C:g}"] = excess, steps = compare_objectives(name, C)
            print(f"T1  {name}, C {C:g}: {excess:.2e}, steps {steps:.2f}", flush=True)
    return {
        "excess": [max(excess for excess, _ in each.values())],
        "steps": [median(steps for _, steps in each.values())],
        "each": each,
    }


# T2


def write_rows(folder: Path) -> Path:
    """Write a CSV file of numbers, categories, gaps and texts with three classes."""
    rng = np.random.default_rng(0)
    rows, words = 3000, np.array(WORDS)
    kind = rng.integers(0, 3, rows)
    number = np.round(rng.normal(size=rows) + kind, 3).astype(str)
    number[::17] = ""
    texts = [" ".join(rng.choice(words[one * 2 : one * 2 + 6], 4)) for one in kind]
    table = {"number": number, "city": rng.choice(["Lisbon", "Porto", "Faro"], rows), "text": texts}
    pa.csv.write_csv(pa.table({**table, "label": np.array(["a", "b", "c"])[kind]}), folder / "rows.csv")
    return folder / "rows.csv"


def hash_artifacts(data: Path, folder: Path, **variables: str) -> str:
    """Return one hash of three artifacts: fitted for two C, balanced, and with a hidden layer."""
    digest = hashlib.sha256()
    for number, options in enumerate((["--c", "1,10"], ["--balance", "--c", "1"], ["--hidden", "8", "--c", "1"])):
        if number == 2:  # noqa: PLR2004  # networks take numbers and categories
            data = data.with_name("numbers.csv")
        models = folder / str(number)
        train(data, models, *options, **variables)
        for file in ("model.json", "model.safetensors"):
            digest.update((models / "m" / "1" / file).read_bytes())
    return digest.hexdigest()


def measure_bits() -> dict[str, Any]:
    """Measure T2: the number of different hashes."""
    hashes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        data = write_rows(Path(scratch))
        table = pa.csv.read_csv(data)
        pa.csv.write_csv(table.drop_columns(["text"]), data.with_name("numbers.csv"))
        for name in (f"{TARGET}, first", f"{TARGET}, second", *(other for other in BASELINES if other != TARGET)):
            more = {}
            if name in BASELINES:
                more = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": "", "SOFTSTEP_KERNELS": str(KERNELS / name)}
            hashes[name] = hash_artifacts(data, Path(scratch) / name, **more)
            print(f"T2  {name}: {hashes[name]}", flush=True)
    return {"different": [float(len(set(hashes.values())))], "hashes": hashes}


# The page


def render(results: dict[str, Any]) -> str:
    """Return the page."""
    machine = results["machine"]
    where = (
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}, "
        f"{machine['date'].split()[0]}, load before {machine['load_before']}."
    )
    return "\n".join([HEAD, where, "", f"## {TITLE}", "", figure_rows(results["figures"]), ""])


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="figures to measure; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="turns of T3")
    parser.add_argument("--rows", type=int, default=10**6, help="rows of T3")
    parser.add_argument("--write", action="store_true", help="keep the results and write the page")
    options = parser.parse_args()
    parts, stored = options.parts or PARTS, PAGE / "results.json"
    results = json.loads(stored.read_text()) if stored.exists() else {}
    results["machine"] = describe()
    if "T1" in parts:
        results["objective"] = measure_objectives()
    if "T2" in parts:
        results["bits"] = measure_bits()
    if "T3" in parts:
        results["speed"] = measure_speed(options.rows, options.rounds)
    results["figures"] = [figure.evaluate(results) | {"table": TITLE} for figure in figures_train.FIGURES]
    print(figure_rows(results["figures"]))
    if options.write:
        PAGE.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps(results, indent=1) + "\n")
        (PAGE / "results.md").write_text(render(results))


if __name__ == "__main__":
    main()
