"""The probabilities of a converted model in float64, by NumPy alone, as a reference."""

import numpy as np

from service.convert.converted_model import ConvertedModel, Doubles, Row
from service.convert.proof import feature_encoder

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
