"""The data sets of the shipped models: files inside the scikit-learn and river wheels."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import river.datasets
import sklearn.datasets
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]  # (B,) class indices, or (B, K) of zeros and ones for multilabel data


@dataclass(frozen=True)
class Data:
    """One data set.

    Attributes:
        X: Raw features, (B, N).
        y: The labels.
        features: N names.
        classes: K names, in the order of the label indices.
        origin: The source of the data, for the manifest.
        width: The width of the hidden layer of its model, 0 without one.
    """

    X: Floats
    y: Labels
    features: tuple[str, ...]
    classes: tuple[str, ...]
    origin: dict[str, str]
    width: int = 0

    @property
    def head(self) -> Literal["softmax", "sigmoid", "multilabel"]:
        """The head that fits the labels."""
        if self.y.ndim > 1:
            return "multilabel"
        return "sigmoid" if len(self.classes) == 2 else "softmax"  # noqa: PLR2004


def load(name: str) -> Data:
    """Load all rows of the data set of one model, in the order of its file."""
    return DATA[name]()


def _iris() -> Data:
    return _from_sklearn(sklearn.datasets.load_iris(), "iris.csv", "Iris (Fisher, 1936)")


def _breast_cancer() -> Data:
    bunch = sklearn.datasets.load_breast_cancer()
    return _from_sklearn(bunch, "breast_cancer.csv", "Breast Cancer Wisconsin (Diagnostic)")


def _digits() -> Data:
    bunch = sklearn.datasets.load_digits()
    return _from_sklearn(bunch, "digits.csv.gz", "Optical Recognition of Handwritten Digits, its test part")


def _digits_mlp() -> Data:
    return replace(_digits(), width=32)


def _phishing() -> Data:
    rows = list(river.datasets.Phishing())
    y = [int(label) for _, label in rows]
    origin = _origin("river", "river/datasets/phishing.csv.gz", "Website Phishing")
    return _from_river(rows, y, ("legitimate", "phishing"), origin)


def _segment() -> Data:
    rows = list(river.datasets.ImageSegments())
    classes = tuple(sorted({label for _, label in rows}))
    y = [classes.index(label) for _, label in rows]
    origin = _origin("river", "river/datasets/segment.csv.zip", "Statlog (Image Segmentation)")
    return _from_river(rows, y, classes, origin)


def _yeast() -> Data:
    rows = list(river.datasets.Yeast())
    y = [[int(label) for label in labels.values()] for _, labels in rows]
    title = "Yeast gene functions (Elisseeff and Weston, 2002), as in MULAN"
    origin = _origin("river", "river/datasets/yeast.csv.gz", title, license_="not stated by its source")
    return _from_river(rows, y, tuple(rows[0][1]), origin)


DATA: dict[str, Callable[[], Data]] = {
    "iris": _iris,
    "breast-cancer": _breast_cancer,
    "digits": _digits,
    "digits-mlp": _digits_mlp,
    "phishing": _phishing,
    "segment": _segment,
    "yeast": _yeast,
}


def _from_sklearn(bunch: Any, file: str, title: str) -> Data:  # noqa: ANN401 - scikit-learn's bunches have no types
    features, classes = (tuple(str(name) for name in names) for names in (bunch.feature_names, bunch.target_names))
    origin = _origin("scikit-learn", f"sklearn/datasets/data/{file}", title)
    return Data(bunch.data, bunch.target, features, classes, origin)


def _from_river(rows: list[Any], y: list[Any], classes: tuple[str, ...], origin: dict[str, str]) -> Data:
    X = np.array([list(row.values()) for row, _ in rows], dtype=np.float64)
    return Data(X, np.array(y), tuple(rows[0][0]), classes, origin)


def _origin(wheel: str, file: str, title: str, license_: str = "CC BY 4.0") -> dict[str, str]:
    """Return the source of data; the license is that of every data set in the UCI Machine Learning Repository."""
    return {"data_set": title, "licence": license_, "wheel": f"{wheel} {version(wheel)}", "file": file}
