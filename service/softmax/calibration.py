"""Calibrations of logits, and models that apply them before their head.

A softmax head is calibrated by a temperature, z / T; a sigmoid head by Platt scaling, a z + b. With T = 1, or a = 1 and
b = 0, no bit of a prediction changes. The formulas are in kernels/calibration_kernels.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.classifier import LOGIT_OVERFLOW, Classifier, Head, LayerShape, RowWork, overflowing_rows
from service.softmax.kernels.calibration_kernels import head_forward, scaling_forward
from service.softmax.kernels.heads import NOT_FINITE

Kind = Literal["temperature", "platt"]
KINDS: Final[dict[Head, Kind]] = {"softmax": "temperature", "sigmoid": "platt"}
# The names of each kind's numbers, and their values without calibration.
IDENTITY: Final[dict[Kind, dict[str, float]]] = {"temperature": {"temperature": 1.0}, "platt": {"a": 1.0, "b": 0.0}}


@dataclass(frozen=True)
class Calibration:
    """A function of the logits before the head; `numbers` are (T,) of a temperature, or (a, b) of Platt scaling."""

    kind: Kind
    numbers: tuple[float, ...]

    def to_dict(self) -> dict[str, float]:
        """Return the numbers by name."""
        return dict(zip(IDENTITY[self.kind], self.numbers, strict=True))

    def to_tensor(self) -> Doubles:
        """Return the numbers as a tensor, (1,) or (2,)."""
        return np.array(self.numbers, np.float64)

    def kernel_numbers(self) -> Doubles:
        """Return the numbers as kernels take them, (2,)."""
        return np.array([*self.numbers, 0.0][:2], np.float64)

    @classmethod
    def from_tensor(cls, head: Head, numbers: NDArray[np.floating[Any]]) -> "Calibration":
        """Return the calibration of a head from its tensor."""
        return cls(KINDS[head], tuple(numbers.tolist()))


class CalibratedModel(Classifier):
    """A model whose logits are calibrated before its head.

    Args:
        inner: The model that computes the logits.
        calibration: Their calibration, of the kind of the head.

    Raises:
        ValueError: The head has no such calibration.
    """

    def __init__(self, inner: Classifier, calibration: Calibration) -> None:
        if KINDS.get(inner.head) != calibration.kind:
            raise ValueError("a softmax head is calibrated by a temperature, a sigmoid head by platt; no other can be")
        super().__init__(inner.head, inner.dtype, inner.n_features, inner.n_logits)
        self.inner: Final = inner
        self.calibration: Final = calibration
        self._numbers: Final = calibration.kernel_numbers()

    @property
    def slope(self) -> float:
        """The derivative of a calibrated logit with respect to the model's logit: 1 / T, or a."""
        return 1 / self._numbers[0] if self.calibration.kind == "temperature" else float(self._numbers[0])

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """The shapes of the inner model's layers."""
        return self.inner.layers

    @property
    def row_work(self) -> RowWork:
        """The work of the inner model."""
        return self.inner.row_work

    @property
    def is_linear(self) -> bool:
        """Whether the inner model's logits are sums over features."""
        return self.inner.is_linear

    def logits(self, X: Floats) -> Floats:
        """Return the calibrated logits Z (B, K) of X (B, N); not finite in rows that overflow the model's dtype."""
        Z = self.inner.logits(X)
        scaling_forward(Z, self._code, self._numbers)
        return Z

    def classify_logits(self, Z: Floats) -> tuple[Floats, Floats, Integers]:
        """Return calibrated logits, probabilities and labels of logits Z (B, K) of `inner`, B >= 1.

        Returns:
            The calibrated logits (B, K), their P (B, n_classes), and labels (B,). A label is NOT_FINITE if a logit is
            not finite, or overflows.
        """
        scaled, P, labels = Z.copy(), np.empty((len(Z), self.n_classes), self.dtype), np.empty(len(Z), np.int64)
        scaling_forward(scaled, self._code, self._numbers)
        head_forward(scaled, self._code, P, labels)
        return scaled, P, labels

    def _predict(self, X: Floats, labels: Integers) -> tuple[Floats, int]:
        if len(X) == 0:
            return self.inner._predict(X, labels)  # noqa: SLF001  # of the same class
        P = np.empty((len(X), self.n_classes), self.dtype)
        label = head_forward(self.logits(X), self._code, P, labels)
        if label == NOT_FINITE:
            return P, self._predict_overflowing(X, P, labels)
        return P, label

    @cached_property
    def float64_model(self) -> "CalibratedModel":
        """The same model in float64, for rows that overflow float32."""
        return CalibratedModel(self.inner.float64_model, self.calibration)


def calibration_tensors(calibration: Calibration | None) -> list[Doubles]:
    """Return the tensor of a calibration in a list, which is empty for None."""
    return [] if calibration is None else [calibration.to_tensor()]


def calibration_from_tensors(head: Head, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> Calibration | None:
    """Return the calibration in tensors by name; None if they have none."""
    return Calibration.from_tensor(head, tensors["calibration"]) if "calibration" in tensors else None


def uncalibrated_model(model: Classifier) -> Classifier:
    """Return the model that computes a model's logits before a calibration."""
    return model.inner if isinstance(model, CalibratedModel) else model


def uncalibrated_logits(model: Classifier, X: Floats) -> Floats:
    """Return the logits (B, K) of X (B, N) before a calibration, as in explanations.

    Raises:
        UnacceptableError: A value of X is not finite, or a logit overflows the model's dtype.
    """
    inner = uncalibrated_model(model)
    Z = inner.logits(X)
    over = overflowing_rows(Z)
    if over.size:
        inner.reject_overflow(X)
        with np.errstate(over="ignore"):
            inner.retry_in_float64(X, over, Z, lambda exact, rows: exact.logits(rows))
        if not np.isfinite(Z[over]).all():
            raise UnacceptableError(LOGIT_OVERFLOW)
    return Z
