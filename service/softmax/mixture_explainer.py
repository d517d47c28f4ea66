"""Explain mixtures of experts: the derivatives of their answers, and the answer of each expert."""

from functools import cached_property
from typing import Final

import numpy as np

from service.softmax.arrays import Floats
from service.softmax.explainer import Explainer, ForwardPass
from service.softmax.explanation import Expert
from service.softmax.kernels.calibration_kernels import head_forward
from service.softmax.mixture_model import MixtureArrays, MixtureModel
from service.softmax.mixture_slopes import BLOCK_CELLS, MixtureSlopes, WithSlopes


class MixtureExplainer(Explainer):
    """Explain a mixture of experts. Its logits are no sums over features, so there are no contributions.

    Args:
        model: The mixture.
        offset: The explainer of its offset, or None without one.
    """

    def __init__(self, model: MixtureModel, offset: Explainer | None) -> None:
        arrays = model.experts
        super().__init__(model, None, arrays.input_stage(), describe_experts(arrays))
        self._mixture: Final = model
        self._offset: Final = offset
        self._slopes: Final = MixtureSlopes(arrays)
        self._block_rows: Final = max(1, BLOCK_CELLS // (model.n_logits * len(arrays.features)))

    def forward(self, X: Floats) -> ForwardPass:
        """Predict rows X (B, N) that `check_rows` accepts."""
        model = self._mixture
        Z, P, labels = model.logits(X), np.empty((len(X), model.n_classes), X.dtype), np.empty(len(X), np.int64)
        head_forward(Z, self._code, P, labels)
        slopes = np.empty((*Z.shape, X.shape[1]), X.dtype)
        for start in range(0, len(X), self._block_rows):
            block = slice(start, start + self._block_rows)
            with np.errstate(over="ignore", invalid="ignore"):
                self._slopes.differentiate(X[block], self._offset_slopes(X[block]), slopes[block])
        slopes[~np.isfinite(Z).all(axis=1)] = np.nan
        return ForwardPass(Z, Z, P, labels, None, slopes, model.member_probabilities(X))

    def _offset_slopes(self, X: Floats) -> WithSlopes | None:
        """Return the logits of the offset and their derivatives."""
        if self._offset is None:
            return None
        found = self._offset.forward(X)
        return WithSlopes(found.Z.astype(np.float64), found.slopes.astype(np.float64))

    @cached_property
    def float64_explainer(self) -> "MixtureExplainer":
        """The explainer of the same mixture in float64, for rows that overflow float32."""
        offset = None if self._offset is None else self._offset.float64_explainer
        return MixtureExplainer(self._mixture.float64_model, offset)


def describe_experts(arrays: MixtureArrays) -> tuple[Expert, ...]:
    """Return the members of the average that a mixture answers with, in the order of their weights."""
    alone = ("features alone",) if arrays.n_heads > 1 else ()
    names = ("features", *alone, "base", *(() if arrays.is_wide else ("linear",)))
    exponents, weights = arrays.weights.tolist(), arrays.guard.tolist()
    each = [("mixture", None), ("frequencies", None), *zip(names, exponents, strict=False)]
    return tuple(Expert(name, weight, exponent) for (name, exponent), weight in zip(each, weights, strict=True))
