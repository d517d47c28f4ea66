"""The probabilities of a source whose logits are known, computed by NumPy in float64."""

import numpy as np

from service.convert.converted_model import Doubles, Head


def to_probabilities(Z: Doubles, head: Head) -> Doubles:
    """Return the probabilities (B, C) of logits Z (B, K); K is 1 for the sigmoid head, else C.

    With the head "ovr" each probability is sigmoid(z_k), divided by their sum. Nothing overflows.
    """
    if head == "sigmoid":
        Z = np.hstack([-Z, Z])
    if head == "softmax":
        return normalize(Z)
    logs = -np.logaddexp(0, -Z)
    return np.exp(logs) if head in {"sigmoid", "multilabel"} else normalize(logs)


def normalize(logs: Doubles) -> Doubles:
    """Return exp(logs) (B, C), divided by its sum in each row."""
    E = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(E / E.sum(axis=1, keepdims=True), np.float64)
