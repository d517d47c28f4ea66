"""Compare a batch through the rule mixture with ONNX Runtime on a network with as many hidden units as random features.

    PYTHONPATH=loadtest python -c "from environments import KERNELS; KERNELS.ensure()"
    PYTHONPATH=. taskset -c 1 build/bench/kernels/bin/python loadtest/mixture_batches.py predict

256 rows of digits go through each library's public, checked call, as in kernels.py: float32 rows in, a new array of
probabilities out, one thread, the libraries in turns. The mixture has learned digits with 256 random features; the
network has 64 inputs, 256 hidden units (ReLU) and 10 classes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from kernels import TOLERANCE, Call, alternate, measure, onnx_network
from learned_models import digits_rows, learn

from service.softmax.kernels.network import LayerArrays
from service.store.artifact.model_factory import build_model

ROWS, HIDDEN = 256, 256


def predict(turns: int) -> dict[str, Any]:
    """Measure both; exit if a probability of the mixture is wrong."""
    digits, rng = digits_rows(), np.random.default_rng(0)
    model, X, K = build_model(learn(digits)), digits.X[:ROWS].copy(), digits.n_classes
    if not np.abs(model.predict(X) - model.float64_model.predict(X.astype(np.float64))).max() <= TOLERANCE:
        raise SystemExit("the probabilities of the mixture are not those in float64")
    first = rng.standard_normal((X.shape[1], HIDDEN), dtype=np.float32) / np.float32(np.sqrt(X.shape[1]))
    last = rng.standard_normal((HIDDEN, K), dtype=np.float32) / np.float32(np.sqrt(HIDDEN))
    hidden = LayerArrays(first, np.zeros(HIDDEN, np.float32), "relu")
    calls: dict[str, Call] = {
        "softstep": lambda: model.predict(X),
        "onnxruntime": onnx_network(hidden, last, np.zeros(K, np.float32), X),
    }
    return {"rows": ROWS, "us": alternate(calls, turns)}


PARTS: dict[str, Callable[[int], Any]] = {"predict": predict}


if __name__ == "__main__":
    measure(str(__doc__), PARTS)
