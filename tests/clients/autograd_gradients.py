"""Compute training objectives and their gradients with autograd, which differentiates programs of NumPy.

    python autograd_gradients.py CASES ANSWERS

CASES is an .npz file with the arrays of case i under the names "i.X" (B, N), "i.Y" (B, K), "i.rows" (B,) the weights of
rows, "i.C", and "i.W0", "i.b0", … of its layers; ANSWERS gets "i.value", "i.W0", "i.b0", …, the gradient. The order of
cases, heads and activations is in "names", a text such as "softmax tanh" for each case. The objective is
Σ weight · loss + |W|² / 2C over the sum of the weights, without the biases in |W|.
"""

import sys
from typing import Any

import autograd.numpy as np
from autograd import value_and_grad

ACTIVATIONS = {"relu": lambda Z: np.maximum(Z, 0), "tanh": np.tanh, "sigmoid": lambda Z: 1 / (1 + np.exp(-Z))}


def objective(layers: list[Any], case: dict[str, Any], head: str, activation: str) -> Any:  # of autograd
    """Return the objective of layers [(W, b), …] of a case."""
    A = case["X"]
    for W, b in layers[:-1]:
        A = ACTIVATIONS[activation](np.dot(A, W) + b)
    Z = np.dot(A, layers[-1][0]) + layers[-1][1]
    if head == "softmax":
        largest = np.max(Z, axis=1, keepdims=True)
        logs = Z - largest - np.log(np.sum(np.exp(Z - largest), axis=1, keepdims=True))
        losses = -np.sum(case["Y"] * logs, axis=1)
    else:
        losses = np.sum(np.logaddexp(0.0, Z) - case["Y"] * Z, axis=1)
    squares = sum(np.sum(W**2) for W, _ in layers)
    return (np.sum(case["rows"] * losses) + squares / (2 * case["C"])) / np.sum(case["rows"])


cases, answers = np.load(sys.argv[1]), {}
for i, name in enumerate(cases["names"].tolist()):
    head, activation = name.split()
    case = {key: cases[f"{i}.{key}"] for key in ("X", "Y", "rows", "C")}
    n_layers = sum(key.startswith(f"{i}.W") for key in cases.files)
    layers = [(cases[f"{i}.W{k}"], cases[f"{i}.b{k}"]) for k in range(n_layers)]
    value, gradient = value_and_grad(objective)(layers, case, head, activation)
    answers[f"{i}.value"] = value
    for k, (weights, bias) in enumerate(gradient):
        answers[f"{i}.W{k}"], answers[f"{i}.b{k}"] = weights, bias
np.savez(sys.argv[2], **answers)
