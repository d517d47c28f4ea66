"""Small artifacts that learn, one of each kind, and rows for them."""

from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from service.softmax.network_learner import NETWORK_RULES
from service.store.artifact.artifact import Artifact
from service.store.artifact.mixture_rules import MIXTURE_HEADS
from tests.support.reference import Array

KINDS = ("zero", "running", "trained", "raw", "staged", "network")
RULES = ("sgd", "adagrad", "ftrl", "newton")
# Widths and activations of the hidden layers of a network.
HIDDEN = ((18, "tanh"), (5, "sigmoid"))


def artifact(
    kind: str = "trained", head: str = "softmax", N: int = 4, K: int = 3, dtype: str = "float32", **fields: Any
) -> Artifact:
    """Return a small artifact with random numbers.

    Args:
        kind: "zero": weights of 0; "running": the same with the rule newton; "trained": training statistics; "raw":
            none; "staged": a stage and statistics; "network": hidden layers too.
        head: The head.
        N: The number of features.
        K: The number of classes, but for a sigmoid head.
        dtype: The dtype.
        fields: Other fields of the manifest.
    """
    rng, columns = np.random.default_rng(0), 1 if head == "sigmoid" else K
    numbers = {"mean": rng.standard_normal(N).tolist(), "scale": np.exp(rng.standard_normal(N)).tolist()}
    manifest: dict[str, Any] = {
        "head": head,
        "classes": [f"class {k}" for k in range(2 if head == "sigmoid" else K)],
        "features": [f"feature {j}" for j in range(N)],
        "dtype": dtype,
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
    }
    if kind in {"trained", "staged", "network"}:
        manifest["training"] = numbers | {"rows": 200}
    if kind in {"staged", "network"}:
        manifest["stage"] = numbers | {"clip": 3.0}
    if kind == "running":
        manifest["learning"] = {"rule": "newton"}
    tensors: dict[str, Array] = {}
    inputs = N
    for number, (width, activation) in enumerate(HIDDEN if kind == "network" else ()):
        layer = {"weight": f"{number}.weight", "bias": f"{number}.bias", "activation": activation}
        manifest["layers"].insert(number, layer)
        tensors[layer["weight"]] = rng.standard_normal((inputs, width)) / np.sqrt(inputs)
        tensors[layer["bias"]] = rng.standard_normal(width)
        inputs = width
    tensors["weight"] = rng.standard_normal((inputs, columns)) * (kind not in {"zero", "running"})
    tensors["bias"] = rng.standard_normal(columns)
    tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    return Artifact.from_fields(manifest | fields, tensors)


def ones(first: int, second: int) -> Artifact:
    """Return a network of one feature, two hidden layers of these widths and two classes; every number is 1."""
    layers = [{"weight": f"w{n}", "bias": f"b{n}", "activation": "relu"} for n in range(3)]
    layers[2]["activation"] = "identity"
    fields = {"head": "softmax", "classes": ["a", "b"], "features": ["x"], "dtype": "float32", "layers": layers}
    tensors = {}
    for n, (inputs, outputs) in enumerate(pairwise((1, first, second, 2))):
        tensors |= {f"w{n}": np.ones((inputs, outputs), np.float32), f"b{n}": np.ones(outputs, np.float32)}
    return Artifact.from_fields(fields, tensors)


def rules_of(kind: str, head: str = "softmax") -> tuple[str, ...]:
    """Return the rules with which an artifact of a kind can go on; nothing but mixture goes on after mixture."""
    if kind == "network":
        return NETWORK_RULES
    if head not in MIXTURE_HEADS:
        return RULES
    return ("mixture",) if kind == "zero" else (*RULES, "mixture")


def rows(source: Artifact, B: int = 60, seed: int = 1) -> tuple[Array, Array]:
    """Return rows and targets (B, K) for an artifact."""
    rng, K = np.random.default_rng(seed), source.bias.size
    X = (rng.standard_normal((B, source.n_features)) * 3 + 1).astype(source.weights.dtype)
    return X, np.eye(K)[rng.integers(0, K, B)] if K > 1 else rng.integers(0, 2, (B, 1)).astype(np.float64)


def digits() -> tuple[Array, Array]:
    """Return the digits in a fixed random order: X (1797, 64) float32, labels."""
    X, y = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(y))
    return X[order].astype(np.float32), y[order].astype(np.int64)
