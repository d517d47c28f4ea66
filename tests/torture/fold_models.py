"""The models of fold_determinism.py, and their feedback, made from the output of a hash function."""

import hashlib
from typing import Any, Final

import numpy as np

from service.softmax.sparse_rows import SparseRows
from service.store.artifact.artifact import Artifact
from service.store.log.feedback_payload import Targets, encode_rows, encode_sparse_rows

N, K = 8, 5
MODELS: Final = ("sgd", "adagrad", "ftrl", "newton", "mixture", "staged", "network", "new", "sparse")
# Columns of the sparse model, and the entries of a row of them.
COLUMNS, ENTRIES = 64, 4
# Widths and activations of the network's hidden layers.
HIDDEN: Final = ((7, "sigmoid"), (6, "tanh"), (9, "relu"))
# Consecutive events of one form, as a client sends them.
RUN: Final = 64


def hashed_numbers(name: str, count: int) -> Any:
    """Return (count,) float64 multiples of 2**-13 in [-4, 4), from a hash of the name."""
    return np.frombuffer(hashlib.shake_128(name.encode()).digest(2 * count), "<i2") * 2.0**-13


def make_artifact(model: str) -> Artifact:
    """Return the artifact of a model of MODELS.

    A model named after a rule learns by it, in training coordinates except for `sgd`. "staged" and "network" have an
    input stage and a calibration that learns; the network has hidden layers too. "new" has weights of 0, and "sparse"
    has hashed columns.
    """
    if model == "sparse":
        return make_sparse_artifact()
    mean, scale = hashed_numbers("mean", N), abs(hashed_numbers("scale", N)) + 0.25
    statistics = {"mean": mean.tolist(), "scale": scale.tolist()}
    fields: dict[str, Any] = {
        "head": "softmax",
        "classes": [f"class {k}" for k in range(K)],
        "features": [f"feature {j}" for j in range(N)],
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        **({} if model == "new" else {"training": {**statistics, "rows": 200}}),
    }
    tensors, inputs = {}, N
    for number, (width, activation) in enumerate(HIDDEN if model == "network" else ()):
        names = f"{number}.weight", f"{number}.bias"
        fields["layers"].insert(number, {"weight": names[0], "bias": names[1], "activation": activation})
        tensors[names[0]] = hashed_numbers(names[0], inputs * width).reshape(inputs, width) / 4
        tensors[names[1]] = hashed_numbers(names[1], width)
        inputs = width
    if model in {"staged", "network"}:
        fields["stage"] = {**statistics, "clip": 3.0}
        fields["calibration"] = {"kind": "temperature", "learn": True, "temperature": 0.25}
    elif model != "new":
        fields["learning"] = {"rule": model, "constants": {}}
    tensors["weight"] = hashed_numbers("weight", inputs * K).reshape(inputs, K) / 4 * (model != "new")
    tensors["bias"] = hashed_numbers("bias", K)
    return Artifact.from_fields(fields, {name: tensor.astype(np.float32) for name, tensor in tensors.items()})


def make_sparse_artifact() -> Artifact:
    """Return the artifact of the model with hashed columns."""
    fields = {
        "head": "softmax",
        "classes": [f"class {k}" for k in range(K)],
        "fields": [{"name": "words", "kind": "bag", "bits": COLUMNS.bit_length() - 1}],
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        "training": {"rows": 200, "support": "support"},
    }
    weight, support = hashed_numbers("weight", COLUMNS * K).reshape(COLUMNS, K), abs(hashed_numbers("support", COLUMNS))
    tensors = {"weight": weight / 4, "bias": hashed_numbers("bias", K), "support": support}
    return Artifact.from_fields(fields, {name: tensor.astype(np.float32) for name, tensor in tensors.items()})


def make_sparse_payloads(count: int) -> list[bytes]:
    """Return payloads of one sparse row each, with a label."""
    values = hashed_numbers("values", count * ENTRIES).reshape(count, ENTRIES).astype(np.float32)
    columns = np.arange(ENTRIES) * (COLUMNS // ENTRIES) + np.abs(values * 8191).astype(np.int64) % (COLUMNS // ENTRIES)
    labels, ends = columns.sum(axis=1) % K, np.array([ENTRIES])
    return [
        encode_sparse_rows(SparseRows(ends, columns[n].astype(np.int32), values[n]), COLUMNS, labels[n : n + 1],
                           Targets.INDEX, K)
        for n in range(count)
    ]  # fmt: skip


def make_payloads(model: str, count: int) -> list[bytes]:
    """Return payloads of one row each: labels, and of dense rows in every eighth run distributions."""
    if model == "sparse":
        return make_sparse_payloads(count)
    X = hashed_numbers("X", count * N).reshape(count, N).astype(np.float32)
    labels = (np.abs(X[:, 0] * 8191).astype(np.int64) + np.argmax(X[:, :K], axis=1)) % K
    payloads = []
    for at in range(count):
        row, label = X[at : at + 1], labels[at : at + 1]
        if at // RUN % 8 == 3:
            Y = np.full((1, K), 0.125, np.float32)
            Y[0, label] = 0.5
            payloads.append(encode_rows(row, Y, Targets.DISTRIBUTION, K))
        else:
            payloads.append(encode_rows(row, label, Targets.INDEX, K))
    return payloads
