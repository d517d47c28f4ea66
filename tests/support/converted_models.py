"""The probabilities of converted, exported and imported models: as the service gives them, and in float64."""

import json
from typing import Any

import numpy as np

from service.convert.converted_model import ConvertedModel, Doubles, Row
from service.convert.proof import feature_encoder
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import build_model

ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
}


def predict_in_float64(model: ConvertedModel, rows: list[Row]) -> Doubles:
    """Return the probabilities (B, C) of B rows."""
    artifact = model.to_artifact("float32")
    encoder = artifact.row_encoder or feature_encoder(artifact, scaled=False)
    encoded = encoder.to_model_rows(encoder.encode_objects(rows).rows, np.dtype(np.float64))
    z = encoded.to_matrix(encoder.n_columns)
    with np.errstate(over="ignore"):
        for layer in model.layers:
            z = ACTIVATIONS[layer.activation](z @ layer.weight + layer.bias)
        sigma = ACTIVATIONS["sigmoid"](z)
    match model.head:
        case "softmax":
            e = np.exp(z - z.max(axis=1, keepdims=True))
            return e / e.sum(axis=1, keepdims=True)
        case "sigmoid":
            return np.hstack([1 - sigma, sigma])
        case "ovr":
            return sigma / sigma.sum(axis=1, keepdims=True)
    return sigma


def answer_rows(artifact: Artifact, rows: list[Row]) -> Doubles:
    """Return the probabilities (B, C) of the service for B rows of names and values."""
    encoder = artifact.row_encoder or feature_encoder(artifact, scaled=False)
    encoded = encoder.to_model_rows(encoder.encode_objects(rows).rows, artifact.weights.dtype)
    X: Any = encoded if artifact.has_sparse_rows else encoded.to_matrix(encoder.n_columns)
    return np.asarray(build_model(artifact).predict(X), np.float64)


def answer_in_float64(artifact: Artifact, rows: list[Row]) -> Doubles:
    """Return the probabilities (B, C) of an artifact's weights in float64."""
    encoder = artifact.row_encoder or feature_encoder(artifact, scaled=False)
    encoded = encoder.encode_objects(rows).rows
    X: Any = encoded if artifact.has_sparse_rows else encoded.to_matrix(encoder.n_columns)
    model: Any = build_model(artifact)
    return np.asarray(model.float64_model.predict(X), np.float64)


def to_imported_row(row: Row, back: Artifact) -> Row:
    """Return a row as a model takes it that was exported and imported: mixed categories are texts, booleans 1 or 0.

    A boolean that may be missing is a number in the graph, and so is a vector of one number.
    """
    kinds = {field.value_name: field for field in back.manifest.fields or () if field.kind != "cross"}
    made = dict(row)
    for name, value in row.items():
        field: Any = kinds.get(name)
        if value is None:
            continue
        if field is None or field.kind == "number":
            made[name] = value[0] if isinstance(value, list) else value + 0
        elif field.kind == "category" and isinstance(field.values[0], str) and not isinstance(value, str):
            made[name] = json.dumps(int(value) if isinstance(value, float) else value)
    return made
