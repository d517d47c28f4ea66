"""Sets of sparse rows: hashed texts, categories and numbers, from installed packages or made here.

set              a row                                                              columns
languages        the name of an emoji, characters 1 to 3, norm l2; 13 languages     2^18
digits           the value of each of 64 pixels as a name                           2^18
phishing         the value of each of 9 features as a name                          2^18
breast cancer    30 standardized numbers by name                                    2^18
penguins         names of categories, and standardized numbers by name              2^18
few words        8 words of a topic among 10, present or not                        2^18
many words       120 words of a topic among 10, counts, norm l2                     2^18
counts           the same without a norm                                            2^18

The rows of languages are those that the shipped model is trained on. A bag of names hashes those of the others.
"""

import sys
from collections import ChainMap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import river.datasets
import sklearn.datasets
from environments import ROOT
from numpy.typing import NDArray
from pydantic import TypeAdapter

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "models"))

from field_data import FIELD_DATA
from field_models import prepare

from service.fields.column_blocks import FieldLimits
from service.fields.field_list import Fields
from service.fields.row_encoder import RowEncoder
from service.softmax.rule import Rule
from service.softmax.sparse_learner import SparseLearner
from service.softmax.sparse_parameters import SparseParameters
from service.softmax.sparse_rows import SparseRows
from service.softmax.sparse_weights import SparseWeights

BITS = 18
TOPICS, TEXTS, VOCABULARY = 10, 10_000, 50_000
# A topic has a share of the words to itself, and each of them is so many times as frequent in it.
TOPIC_SHARE, TOPIC_FACTOR = 0.02, 8.0


class SparseSet(NamedTuple):
    """A data set: B rows with float32 values, y (B,) class indices, and the number of columns and of classes."""

    rows: SparseRows
    y: NDArray[np.int64]
    n_columns: int
    n_classes: int

    def shuffled(self, seed: int) -> "SparseSet":
        """Return the same rows in another order."""
        order = np.random.default_rng(seed).permutation(len(self.y))
        return self._replace(rows=self.rows.take(order), y=self.y[order])

    def learner(self, rule: Rule) -> SparseLearner:
        """Return a learner of these rows with weights of 0."""
        K = 1 if self.n_classes == 2 else self.n_classes  # noqa: PLR2004
        weights = SparseWeights.from_matrix(np.zeros((self.n_columns, K), np.float32), np.zeros(K, np.float32))
        head = "sigmoid" if K == 1 else "softmax"
        return SparseLearner(SparseParameters(head, weights), rule, np.full(K, 0.5))  # type: ignore[arg-type]


def languages() -> SparseSet:
    """Return the names of emoji that the shipped model is trained on."""
    prepared = prepare("languages")
    X, y = prepared.X[prepared.train], prepared.data.y[prepared.train]
    rows = SparseRows(X.indptr[1:].astype(np.int64), X.indices.astype(np.int32), X.data.astype(np.float32))
    return SparseSet(rows, y.astype(np.int64), X.shape[1], len(prepared.data.classes))


def encode_bags(bags: Sequence[Any], labels: Sequence[Any] | NDArray[Any], **more: Any) -> SparseSet:  # noqa: ANN401
    """Return bags of names as rows of hashed columns; classes are the sorted labels."""
    fields = [{"name": "names", "kind": "bag", "bits": BITS, **more}]
    encoder = RowEncoder(TypeAdapter(Fields).validate_python(fields), {}, FieldLimits())
    rows = encoder.encode_objects([{"names": bag} for bag in bags]).rows.astype(np.float32)
    classes, y = np.unique(np.asarray(labels), return_inverse=True)
    return SparseSet(rows, y.astype(np.int64), encoder.n_columns, len(classes))


def digits() -> SparseSet:
    """Return digits with a name for each value of each pixel."""
    X, y = sklearn.datasets.load_digits(return_X_y=True)
    return encode_bags([[f"{j}={x:g}" for j, x in enumerate(row)] for row in X.tolist()], y)


def phishing() -> SparseSet:
    """Return river's Phishing with a name for each value of each feature."""
    pairs = list(river.datasets.Phishing())
    return encode_bags([[f"{name}={x}" for name, x in row.items()] for row, _ in pairs], [label for _, label in pairs])


def breast_cancer() -> SparseSet:
    """Return breast cancer with standardized numbers by name."""
    X, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return encode_bags([{f"x{j}": x for j, x in enumerate(row)} for row in X.tolist()], y)


def penguins() -> SparseSet:
    """Return penguins with standardized numbers by name, and names of categories; gaps are left out."""
    data, bags = FIELD_DATA["penguins"](), []
    for name in data.rows[0]:
        if name == "year":  # the seasons of the study
            continue
        column = [row[name] for row in data.rows]
        known = [x for x in column if x is not None]
        if isinstance(known[0], str):
            bags.append([{} if x is None else {f"{name}={x}": 1.0} for x in column])
        else:
            mean, scale = float(np.mean(known)), float(np.std(known))
            bags.append([{} if x is None else {name: (x - mean) / scale} for x in column])
    return encode_bags([dict(ChainMap(*parts)) for parts in zip(*bags, strict=True)], data.y)


def texts(words: int, **more: Any) -> SparseSet:  # noqa: ANN401
    """Return texts of so many words each; frequencies of words fall with their rank, and each topic has its own."""
    rng = np.random.default_rng(words)
    base = 1 / np.arange(1, VOCABULARY + 1)
    own = rng.random((TOPICS, VOCABULARY)) < TOPIC_SHARE
    frequencies = np.where(own, TOPIC_FACTOR * base, base)
    frequencies /= frequencies.sum(axis=1, keepdims=True)
    y = rng.integers(0, TOPICS, TEXTS)
    drawn = [rng.choice(VOCABULARY, words, p=frequencies[topic]) for topic in y]
    return encode_bags([[f"w{word}" for word in text] for text in drawn], y, **more)


SETS: dict[str, Callable[[], SparseSet]] = {
    "languages": languages,
    "digits": digits,
    "phishing": phishing,
    "breast cancer": breast_cancer,
    "penguins": penguins,
    "few words": partial(texts, 8),
    "many words": partial(texts, 120, norm="l2"),
    "counts": partial(texts, 120),
}
