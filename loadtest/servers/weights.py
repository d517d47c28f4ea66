"""Shared by every comparison server: the command line, the trained weights and a stable NumPy softmax."""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Floats = NDArray[np.float32]


class Linear(NamedTuple):
    """A trained linear softmax classifier: weight (N, K), bias (K,), both float32."""

    weight: Floats
    bias: Floats

    def probabilities(self, rows: Floats) -> Floats:
        """Return the class probabilities (B, K) of `rows` (B, N)."""
        logits = rows @ self.weight + self.bias
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Floats = scores / scores.sum(axis=1, keepdims=True)
        return probabilities


def load(models: Path, name: str) -> Linear:
    """Read version 1 of the model `name`; its first and only layer names its two tensors."""
    folder = models / name / "1"
    layer = json.loads((folder / "model.json").read_text())["layers"][0]
    tensors = load_file(folder / "model.safetensors")
    return Linear(tensors[layer["weight"]], tensors[layer["bias"]])


def arguments() -> argparse.Namespace:
    """Parse the command line that every comparison server receives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--models", type=Path, required=True, help="directory of models/<name>/<version>/")
    parser.add_argument("--scratch", type=Path, required=True, help="empty directory for what the server writes")
    parser.add_argument("--tuned", action="store_true", help="settings chosen for small models, where a server has any")
    return parser.parse_args()
