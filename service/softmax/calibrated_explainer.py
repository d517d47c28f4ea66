"""Explain calibrated models."""

from functools import cached_property
from typing import Final

import numpy as np

from service.softmax.arrays import Floats
from service.softmax.calibration import CalibratedModel
from service.softmax.explainer import Explainer, ForwardPass
from service.softmax.kernels.heads import NOT_FINITE


class CalibratedExplainer(Explainer):
    """Explain a calibrated model: logits, contributions and experts of the inner model, derivatives of the whole.

    Args:
        model: The calibrated model.
        inner: The explainer of `model.inner`.
    """

    def __init__(self, model: CalibratedModel, inner: Explainer) -> None:
        super().__init__(model, inner.bias, inner.stage, inner.experts)
        self._inner: Final = inner
        self._calibrated: Final = model

    def forward(self, X: Floats) -> ForwardPass:
        """Predict rows X (B, N) that `check_rows` accepts."""
        inner = self._inner.forward(X)
        scaled, P, labels = self._calibrated.classify_logits(inner.Z)
        labels[inner.labels == NOT_FINITE] = NOT_FINITE
        with np.errstate(over="ignore", invalid="ignore"):
            slopes = inner.slopes * inner.slopes.dtype.type(self._calibrated.slope)
        return ForwardPass(inner.Z, scaled, P, labels, inner.parts, slopes, inner.experts)

    @cached_property
    def float64_explainer(self) -> "CalibratedExplainer":
        """The explainer of the same model in float64, for rows that overflow float32."""
        return CalibratedExplainer(self._calibrated.float64_model, self._inner.float64_explainer)
