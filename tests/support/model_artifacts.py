"""Artifacts of the models that tests serve: the shipped ones, and one of each other kind."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.store.artifact.artifact import Artifact, write_artifact
from tests.support.paths import SHIPPED


def make_artifact(
    head: str,
    n_features: int,
    classes: list[str],
    dtype: str = "float32",
    *,
    seed: int = 7,
    hidden: Sequence[int] = (),
    **fields: Any,
) -> Artifact:
    """Make an artifact with random weights; `hidden` are the widths of hidden layers."""
    random = np.random.default_rng(seed)
    n_outputs = 1 if head == "sigmoid" else len(classes)
    layers, tensors, inputs = [], {}, n_features
    for number, width in enumerate(hidden):
        names = f"hidden.{number}.weight", f"hidden.{number}.bias"
        layers.append({"weight": names[0], "bias": names[1], "activation": ("sigmoid", "tanh", "relu")[number % 3]})
        tensors[names[0]] = (random.standard_normal((inputs, width)) / np.sqrt(inputs)).astype(dtype)
        tensors[names[1]] = random.standard_normal(width).astype(dtype)
        inputs = width
    layers.append({"weight": "weight", "bias": "bias", "activation": "identity"})
    features = [f"x{i}" for i in range(n_features)]
    manifest = {"head": head, "classes": classes, "features": features, "dtype": dtype, "layers": layers, **fields}
    tensors["weight"] = (random.standard_normal((inputs, n_outputs)) / np.sqrt(inputs)).astype(dtype)
    return Artifact.from_fields(manifest, {**tensors, "bias": random.standard_normal(n_outputs).astype(dtype)})


def extra_artifacts() -> dict[str, Artifact]:
    """Make a model of each kind that is not shipped."""
    stage = {"mean": [1.0, -2.0, 0.5], "scale": [2.0, 0.5, 1.0], "clip": 3.0}
    return {
        "heavy": make_artifact("softmax", 768, [f"c{k}" for k in range(1000)]),
        "double": make_artifact("softmax", 3, ["a", "b", "c"], "float64"),
        "ovr": make_artifact("ovr", 4, ["a", "b", "c"]),
        "tags": make_artifact("multilabel", 3, ["a", "b", "ü\n"], thresholds=[0.2, 0.5, 0.8]),
        "staged": make_artifact("softmax", 3, ["a", "b"], stage=stage),
        "network": make_artifact("softmax", 3, ["a", "b", "c"], hidden=(17, 5), stage=stage),
        "cool": make_artifact(
            "softmax",
            3,
            ["a", "b", "c"],
            hidden=(9,),
            calibration={"kind": "temperature", "learn": True, "temperature": 2.5},
        ),
        "platt": make_artifact("sigmoid", 4, ["no", "yes"], calibration={"kind": "platt", "a": 0.5, "b": -1.0}),
        "deep": make_artifact("multilabel", 4, ["a", "b"], "float64", hidden=(6,) * 12),
    }


def write_models(root: Path) -> Path:
    """Write the shipped models and the extra ones into a directory, and return it."""
    shutil.copytree(SHIPPED, root, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name, artifact in extra_artifacts().items():
        write_artifact(root / name / "1", artifact)
    return root
