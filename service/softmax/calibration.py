"""The safe door to calibration: numbers behind a model's logits, and the model that answers with them.

A softmax head has a temperature, z / T; a sigmoid head Platt's a z + b. Temperature 1, or a = 1 and b = 0, change no
bit. What is computed, and how the numbers are learned, stands in scaling.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.softmax.classifier import Classifier, Head, LayerShape
from service.softmax.input_stage import Doubles, Floats
from service.softmax.kernels.calibration_kernels import head_forward, scaling_forward
from service.softmax.kernels.heads import NOT_FINITE

Kind = Literal["temperature", "platt"]
KINDS: Final[dict[Head, Kind]] = {"softmax": "temperature", "sigmoid": "platt"}
# Of each kind what its numbers are called, and what they are where nothing is calibrated.
IDENTITY: Final[dict[Kind, dict[str, float]]] = {"temperature": {"temperature": 1.0}, "platt": {"a": 1.0, "b": 0.0}}


@dataclass(frozen=True)
class Calibration:
    """What is done to logits before the head: `numbers` are (T,) of a temperature, or (a, b) of Platt scaling."""

    kind: Kind
    numbers: tuple[float, ...]

    def named(self) -> dict[str, float]:
        """The numbers by name."""
        return dict(zip(IDENTITY[self.kind], self.numbers, strict=True))

    def array(self) -> Doubles:
        """The numbers as a tensor, (1,) or (2,)."""
        return np.array(self.numbers, np.float64)

    def cells(self) -> Doubles:
        """The numbers as kernels take them, (2,)."""
        return np.array([*self.numbers, 0.0][:2], np.float64)

    @classmethod
    def of(cls, head: Head, numbers: NDArray[np.floating[Any]]) -> "Calibration":
        """What gave this array, before that head."""
        return cls(KINDS[head], tuple(numbers.tolist()))


class Calibrated(Classifier):
    """A model whose logits are calibrated before its head.

    Args:
        inner: The model that gives the logits.
        calibration: What is done to them; of the kind that fits the head.

    Raises:
        ValueError: The head has no such calibration.
    """

    def __init__(self, inner: Classifier, calibration: Calibration) -> None:
        if KINDS.get(inner.head) != calibration.kind:
            raise ValueError("a softmax head is calibrated by a temperature, a sigmoid head by platt, and no other is")
        super().__init__(inner.head, inner.dtype, inner.n_features, inner.n_logits)
        self.inner: Final = inner
        self.calibration: Final = calibration
        self._numbers: Final = calibration.cells()

    @property
    def slope(self) -> float:
        """The derivative of a calibrated logit by the logit that it was made of: 1 / T, or a."""
        return 1 / self._numbers[0] if self.calibration.kind == "temperature" else float(self._numbers[0])

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """Those of the model that gives the logits."""
        return self.inner.layers

    def logits(self, X: Floats) -> Floats:
        """Z (B, K) of X (B, N), calibrated; not finite in rows that overflow the model's dtype."""
        Z = self.inner.logits(X)
        scaling_forward(Z, self._code, self._numbers)
        return Z

    def behind(self, Z: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """What becomes of logits Z (B, K), B >= 1, that `inner` gave: them calibrated, their P, and labels (B,).

        A label is NOT_FINITE where a logit is not finite, or overflows.
        """
        scaled, P, labels = Z.copy(), np.empty((len(Z), self.n_classes), self.dtype), np.empty(len(Z), np.int64)
        scaling_forward(scaled, self._code, self._numbers)
        head_forward(scaled, self._code, P, labels)
        return scaled, P, labels

    def _predict(self, X: Floats, labels: NDArray[np.int64]) -> tuple[Floats, int]:
        if len(X) == 0:
            return self.inner._predict(X, labels)  # noqa: SLF001  # of the same class
        P = np.empty((len(X), self.n_classes), self.dtype)
        label = head_forward(self.logits(X), self._code, P, labels)
        if label == NOT_FINITE:
            return P, self._predict_again(X, P, labels)
        return P, label

    @cached_property
    def _double(self) -> "Calibrated":
        return Calibrated(self.inner._double, self.calibration)  # noqa: SLF001


def numbers_of(calibration: Calibration | None) -> list[Doubles]:
    """The tensor of a calibration, if there is one."""
    return [] if calibration is None else [calibration.array()]


def calibration_in(head: Head, arrays: Mapping[str, NDArray[np.floating[Any]]]) -> Calibration | None:
    """The calibration that gave one of these arrays, if one did."""
    return Calibration.of(head, arrays["calibration"]) if "calibration" in arrays else None
