"""Artifacts of sparse rows, and feedback of such rows in a log that is kept in memory."""

from typing import Any

import numpy as np

from service.softmax.sparse_rows import SparseRows
from service.store.artifact.artifact import Artifact
from service.store.log.feedback_payload import Targets, encode_sparse_rows
from tests.support.artifact_files import HEAD_LAYER
from tests.support.reference import Array

FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "country", "kind": "category", "values": ["DE", "PT"], "unknown": "other"},
    {"name": "subject", "kind": "text", "words": [1, 2], "bits": 6, "norm": "l2"},
)
N = 3 + 64
CLASSES = ("a", "b", "c")


def sparse_artifact(*, head: str = "softmax", seed: int | None = 0, support: bool = False, **fields: Any) -> Artifact:
    """Return a model of a category and a hashed text.

    Args:
        head: The head; a sigmoid head has two classes, others three.
        seed: The seed of the weights; None for weights of 0.
        support: Whether it has the sums of squares of the columns of 50 training rows.
        fields: Other fields of the manifest.
    """
    classes, rng = CLASSES[: 2 if head == "sigmoid" else 3], np.random.default_rng(seed)
    K = 1 if head == "sigmoid" else 3
    weights, bias = (rng.standard_normal(shape) * (seed is not None) for shape in ((N, K), K))
    tensors = {"weight": weights.astype("f4"), "bias": bias.astype("f4")}
    training = {}
    if support:
        tensors["support"] = rng.integers(0, 50, N).astype("f4")
        training = {"training": {"rows": 50, "support": "support"}}
    document = {
        "head": head,
        "classes": list(classes),
        "fields": list(FIELDS),
        "dtype": "float32",
        "layers": [HEAD_LAYER],
        **training,
        **fields,
    }
    return Artifact.from_fields(document, tensors)


def few_columns(rng: np.random.Generator, rows: int, entries: int = 6) -> SparseRows:
    """Return rows of up to so many of the N columns, in float32."""
    each = [np.sort(rng.choice(N, rng.integers(0, entries + 1), replace=False)) for _ in range(rows)]
    columns = np.concatenate([*each, np.empty(0, np.int64)]).astype(np.int32)
    ends = np.cumsum([len(row) for row in each], dtype=np.int64)
    return SparseRows(ends, columns, rng.standard_normal(len(columns)).astype(np.float32))


def sparse_payload(rng: np.random.Generator, rows: int = 1, classes: int = 3) -> bytes:
    """Return the payload of an event of random rows with random labels."""
    return encode_sparse_rows(few_columns(rng, rows), N, rng.integers(0, classes, rows), Targets.INDEX, classes)


def random_targets(rng: np.random.Generator, artifact: Artifact, rows: int) -> Array:
    """Return targets (rows, K) of the logits that the head learns from."""
    head = artifact.manifest.head
    if head in {"sigmoid", "multilabel"}:
        return rng.integers(0, 2, (rows, artifact.manifest.n_outputs)).astype(np.float64)
    return np.eye(3)[rng.integers(0, 3, rows)]
