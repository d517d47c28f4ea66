"""Rows of a data set, and artifacts for them; imports only what Softstep itself needs."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from service.store.artifact.artifact import Artifact


class Rows(NamedTuple):
    """A data set: X (B, N) float32, y (B,) class indices, and the number of classes."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    n_classes: int

    def shuffled(self, seed: int) -> "Rows":
        """Return the same rows in another order."""
        order = np.random.RandomState(seed).permutation(len(self.y))
        return Rows(self.X[order].copy(), self.y[order].copy(), self.n_classes)


def make_artifact(data: Rows, weight: Any = None, bias: Any = None, **fields: Any) -> Artifact:  # noqa: ANN401
    """Return an artifact for a data set, by default with zero weights."""
    N, K = data.X.shape[1], 1 if data.n_classes == 2 else data.n_classes  # noqa: PLR2004
    weight = np.zeros((N, K)) if weight is None else weight
    bias = np.zeros(K) if bias is None else bias
    manifest = {
        "head": "sigmoid" if K == 1 else "softmax",
        "classes": [f"class {k}" for k in range(data.n_classes)],
        "features": [f"feature {j}" for j in range(N)],
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        **fields,
    }
    return Artifact.from_fields(manifest, {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)})
