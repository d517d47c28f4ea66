"""Explanations: the contributions of features to a prediction, its derivatives, and the answers of experts.

    contributions   the part of each logit that comes from each feature; only of linear models, whose logits are sums
    sensitivities   dP / dx: the derivative of each probability with respect to each raw feature, through the head,
                    every layer and the stage; 0 where a stage clips
    loss_gradients  dL / dx of the loss of a given target
    experts         the probabilities of each expert of a mixture

Probabilities and labels are bit-identical to `Classifier.classify`, logits to `Classifier.logits`. The formulas are in
kernels/attributions.py; those of backpropagation in network_model.py, and those of a mixture in mixture_slopes.py.

For a calibrated model, logits, contributions and the answers of experts are those before the calibration, because a
calibration is not caused by features. Sensitivities, losses and their gradients are those of the returned
probabilities: the slope of a calibrated logit is dz_k / dx times 1 / T, or a.
"""

from abc import ABC, abstractmethod
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.classifier import GRADIENT_OVERFLOW, HEADS, LOGIT_OVERFLOW, Classifier
from service.softmax.explanation import NO_ROWS, Expert, Explanation
from service.softmax.input_stage import NOT_NUMBERS, Stage
from service.softmax.kernels.attributions import answered_losses, sensitivities_forward
from service.softmax.kernels.heads import NOT_FINITE


class ForwardPass(NamedTuple):
    """The values of predicting B rows, from which an explanation is computed; `slopes` are overwritten by that.

    Attributes:
        Z: (B, K) logits before a calibration.
        scaled: (B, K) logits of the head; Z itself without a calibration.
        P: (B, C) probabilities.
        labels: (B,) int64, NOT_FINITE in rows that overflow.
        parts: (B, K, N) contributions, or None if logits are no sums over features.
        slopes: (B, K, N), the derivatives of the scaled logits with respect to x.
        experts: (B, E, C) probabilities of the experts of a mixture, or None for another model.
    """

    Z: Floats
    scaled: Floats
    P: Floats
    labels: Integers
    parts: Floats | None
    slopes: Floats
    experts: Floats | None = None


class Explainer(ABC):
    """Explain the predictions of one model. Immutable and thread-safe.

    Args:
        model: The model.
        bias: (K,), the part of each logit that comes from no feature; None if logits are no sums over features.
        stage: The input stage, whose mean is the center of the features; None for the center 0.
        experts: The E experts of a mixture; none for another model.

    Attributes:
        bias: As given.
        stage: As given.
        experts: As given.
    """

    def __init__(
        self, model: Classifier, bias: Floats | None, stage: Stage | None, experts: tuple[Expert, ...] = ()
    ) -> None:
        self.bias: Final = bias
        self.stage: Final = stage
        self.experts: Final = experts
        self._model: Final = model
        self._code: Final = HEADS[model.head]

    @property
    def center(self) -> Doubles:
        """(N,), the values at which the model's features are centered."""
        return np.zeros(self._model.n_features) if self.stage is None else self.stage.mean

    @property
    @abstractmethod
    def float64_explainer(self) -> "Explainer":
        """The explainer of the same model in float64, for rows that overflow float32."""

    def explain(self, X: Floats, Y: Doubles | None = None) -> Explanation:
        """Explain the predictions of rows.

        A row with a number that overflows float32 is explained in float64.

        Args:
            X: (B, N), B >= 1, C-contiguous and of the model's dtype.
            Y: (B, K) targets as in kernels/loss.py, or None.

        Raises:
            UnacceptableError: A value of X is not finite, or a number overflows float64 as well.
            ValueError: X or Y has another shape.
            TypeError: X has another dtype or layout.
        """
        self._model.check_rows(X)
        if Y is not None:
            Y = self._model.check_targets(Y, len(X))
        explanation = self._differentiate(self.forward(X), Y)
        over = np.flatnonzero(explanation.labels == NOT_FINITE)
        return explanation if not over.size else self._add_float64_rows(X, Y, explanation, over)

    @abstractmethod
    def forward(self, X: Floats) -> ForwardPass:
        """Predict rows X (B, N) that `check_rows` accepts."""

    def _add_float64_rows(
        self, X: Floats, Y: Doubles | None, explanation: Explanation, over: NDArray[np.intp]
    ) -> Explanation:
        """Return the explanation with the rows `over` explained in float64."""
        if not np.isfinite(X[over]).all():
            raise UnacceptableError(NOT_NUMBERS)
        if X.dtype == np.float64:
            raise UnacceptableError(
                GRADIENT_OVERFLOW if np.isfinite(explanation.logits[over]).all() else LOGIT_OVERFLOW
            )
        exact = self.float64_explainer.explain(X[over].astype(np.float64), None if Y is None else Y[over])
        explanation.probabilities[over], explanation.labels[over] = self._model.classify(X[over])
        if explanation.experts is not None:
            explanation.experts[over] = exact.experts
        return explanation._replace(over=over, exact=exact)

    def _differentiate(self, forward: ForwardPass, Y: Doubles | None) -> Explanation:
        """Return the explanation, with the label NOT_FINITE in rows that overflow."""
        Z, scaled, P, labels, parts, slopes, experts = forward
        (B, K), N, dtype = Z.shape, slopes.shape[2], Z.dtype
        S = np.empty((B, P.shape[1], N), dtype)
        if Y is None:
            sensitivities_forward(scaled, P, np.empty((0, K)), self._code, slopes, labels, S, np.empty((0, N), dtype))
            return Explanation(labels, Z, P, parts, S, None, None, NO_ROWS, experts=experts)
        D, losses = np.empty((B, N), dtype), np.empty(B)
        sensitivities_forward(scaled, P, Y, self._code, slopes, labels, S, D)
        answered_losses(scaled, Y, self._code, labels, losses)
        return Explanation(labels, Z, P, parts, S, losses, D, NO_ROWS, experts=experts)
