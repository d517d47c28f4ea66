"""Explain linear models."""

from functools import cached_property
from typing import Final

import numpy as np

from service.softmax.arrays import Floats
from service.softmax.explainer import Explainer, ForwardPass
from service.softmax.input_stage import InputStage
from service.softmax.kernels.attributions import linear_parts
from service.softmax.kernels.matmul import pack
from service.softmax.linear_model import LinearModel


class LinearExplainer(Explainer):
    """Explain a linear model."""

    def __init__(self, model: LinearModel) -> None:
        super().__init__(model, model.bias, model.stage)
        self._linear: Final = model
        delta = model.delta
        rows = model.weights if delta is None else np.vstack([model.weights, delta.weights])
        inputs = InputStage(model.stage, None if delta is None else delta.stage, model.n_features, model.dtype)
        self._panels: Final = pack(rows, model.bias)
        self._weights: Final = np.ascontiguousarray(rows.T)
        self._stagings: Final = inputs.stagings()

    def forward(self, X: Floats) -> ForwardPass:
        """Predict rows X (B, N) that `check_rows` accepts."""
        (B, N), dtype, K = X.shape, X.dtype, len(self._weights)
        Z, P = np.empty((B, K), dtype), np.empty((B, self._model.n_classes), dtype)
        parts, slopes, labels = np.empty((B, K, N), dtype), np.empty((B, K, N), dtype), np.empty(B, np.int64)
        linear_parts(X, self._stagings, self._panels, self._weights, self._code, Z, P, labels, parts, slopes)
        return ForwardPass(Z, Z, P, labels, parts, slopes)

    @cached_property
    def float64_explainer(self) -> "LinearExplainer":
        """The explainer of the same model in float64, for rows that overflow float32."""
        return LinearExplainer(self._linear.float64_model)
