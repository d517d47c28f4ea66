"""What every model answers, however its logits are made: probabilities, labels, log-probabilities and losses.

A model gives its logits, and its own kernel for the whole way to the probabilities; what happens to rows that overflow
float32, and which arrays are refused, is the same for all and stands here.
"""

from abc import ABC, abstractmethod
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.input_stage import NOT_NUMBERS, Doubles, Floats
from service.softmax.kernels.heads import MULTILABEL, OVR, SIGMOID, SOFTMAX
from service.softmax.kernels.loss import cross_entropy_forward, log_probabilities_forward
from service.softmax.kernels.single import SingleRowPlan

Head = Literal["softmax", "sigmoid", "multilabel", "ovr"]

OVERFLOW: Final = "A row has values too large for this model: its logits overflow; scale the features."
# Numba's dispatcher remembers an array's type without its byte order and alignment and would read such an array as it
# stands (52 ns of the 820 of a predict of one row).
LAYOUT: Final = "X must be an aligned, writable, C-contiguous array of the model's dtype"
STEEP: Final = "A row has values too large for this model: its gradient overflows; scale the features."
NO_LABELS: Final = np.empty(0, np.int64)

HEADS: Final[dict[str, int]] = {"softmax": SOFTMAX, "sigmoid": SIGMOID, "multilabel": MULTILABEL, "ovr": OVR}


class LayerShape(NamedTuple):
    """What a layer takes and gives, and the activation behind it: "identity" where the head follows."""

    inputs: int
    outputs: int
    activation: str


class Classifier(ABC):
    """A model of `n_features` features and `n_logits` logits, in one dtype, behind one of the heads.

    Args:
        head: The head's name.
        dtype: Of rows and probabilities, float32 or float64.
        n_features: N, the width of a row.
        n_logits: K.
    """

    def __init__(self, head: Head, dtype: np.dtype[Any], n_features: int, n_logits: int) -> None:
        self.head: Final = head
        self.dtype: Final = dtype
        self.n_features: Final = n_features
        self.n_logits: Final = n_logits
        self.n_classes: Final = 2 if head == "sigmoid" else n_logits
        self._code: Final = HEADS[head]

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """The layers, the head's last; those who estimate a cost, or tell of a model, read them."""
        return (LayerShape(self.n_features, self.n_logits, "identity"),)

    def single(self) -> SingleRowPlan | None:
        """Buffers to predict one row at a time in; None where only `predict` answers."""
        return None

    @abstractmethod
    def logits(self, X: Floats) -> Floats:
        """Z (B, K) of X (B, N); not finite in rows that overflow the model's dtype."""

    @abstractmethod
    def _predict(self, X: Floats, labels: NDArray[np.int64]) -> tuple[Floats, int]:
        """P (B, n_classes) and the first row's label; labels (B,) is written, or is empty where none are wanted."""

    @property
    @abstractmethod
    def _double(self) -> "Classifier":
        """The same model in float64, for rows that overflow float32."""

    def predict(self, X: Floats) -> Floats:
        """Probabilities P (B, n_classes) of X (B, N), which must be C-contiguous and of the model's dtype.

        A row whose logits overflow float32 is computed again in float64.

        Raises:
            UnacceptableError: A value of X is not finite, or a row's logits overflow float64 as well.
            ValueError: X has another width.
            TypeError: X has another dtype or layout.
        """
        return self._predict(X, NO_LABELS)[0]

    def classify(self, X: Floats) -> tuple[Floats, list[int]]:
        """As `predict`, and for each row the lowest index of its largest probability (0 for the multilabel head)."""
        if len(X) == 1:  # the kernel returns the first row's label, which saves a single row an array for it
            P, label = self._predict(X, NO_LABELS)
            return P, [label]
        labels = np.empty(len(X), np.int64)
        return self._predict(X, labels)[0], labels.tolist()

    def log_probabilities(self, X: Floats) -> Doubles:
        """The logarithms (B, K) float64 of the probabilities of X (B, N); of the rows that `predict` answers."""
        Z, over = self._finite_logits(X)
        out = np.empty((len(X), self.n_classes))
        log_probabilities_forward(Z, self._code, out)
        if over.size:
            out[over] = self._double.log_probabilities(X[over].astype(np.float64))
        return out

    def losses(self, X: Floats, Y: Doubles) -> Doubles:
        """The training loss (B,) of X (B, N) for the targets Y (B, K), K = 1 for sigmoid: see loss.py."""
        Z, over = self._finite_logits(X)
        Y, losses = self._targets(Y, len(X)), np.empty(len(X))
        cross_entropy_forward(Z, Y, self._code, losses)
        if over.size:
            losses[over] = self._double.losses(X[over].astype(np.float64), Y[over])
        return losses

    def _rounded(self, exact: Floats) -> Floats:
        """Derivatives in the model's dtype, or an error where they overflow it."""
        with np.errstate(over="ignore"):
            rounded = exact.astype(self.dtype)
        if not np.isfinite(rounded).all():
            raise UnacceptableError(STEEP)
        return rounded

    def _check_rows(self, X: Floats) -> None:
        if X.ndim != 2 or X.shape[0] < 1 or X.shape[1] != self.n_features:  # noqa: PLR2004  # a matrix
            raise ValueError(f"X must be (at least 1, {self.n_features}), not {X.shape}")
        if X.dtype != self.dtype or not X.flags.carray:
            raise TypeError(LAYOUT)

    def _finite_logits(self, X: Floats) -> tuple[Floats, NDArray[np.intp]]:
        """Z (B, K) of X, and the rows whose logits overflow the model's dtype; their logits are set to 0.

        Raises:
            UnacceptableError: `predict` would not answer these rows.
        """
        Z = self.logits(X)
        over = np.flatnonzero(~np.isfinite(Z).all(axis=1))
        if over.size:
            self._refuse_overflow(X)
            if not np.isfinite(self._double.logits(X[over].astype(np.float64))).all():
                raise UnacceptableError(OVERFLOW)
            Z[over] = 0
        return Z, over

    def _refuse_overflow(self, X: Floats) -> None:
        """Raise UnacceptableError where rows whose logits overflow have no answer in float64 either."""
        if not np.isfinite(X).all():  # asked here alone: such a value makes its row's logits infinite or NaN
            raise UnacceptableError(NOT_NUMBERS)
        if self.dtype == np.float64:
            raise UnacceptableError(OVERFLOW)

    def _targets(self, Y: Doubles, rows: int) -> Doubles:
        if Y.shape != (rows, self.n_logits) or Y.dtype != np.float64:
            raise ValueError(f"Y must be float64 of shape {(rows, self.n_logits)}, not {Y.dtype} of {Y.shape}")
        return np.require(Y, requirements=("C", "A", "W"))

    def _predict_again(self, X: Floats, P: Floats, labels: NDArray[np.int64]) -> int:
        """Compute the rows of P and labels again whose logits overflowed; returns the first row's label."""
        self._refuse_overflow(X)
        rows = np.flatnonzero(~np.isfinite(self.logits(X)).all(axis=1))
        kept = np.setdiff1d(np.arange(len(X)), rows)
        P[rows] = self._double.predict(X[rows].astype(np.float64))
        every = np.zeros(len(X), np.int64)
        if self.head != "multilabel":
            every[rows] = P[rows].argmax(axis=1)  # of the rounded probabilities: classes that tie as answered tie here
        if kept.size:
            P[kept], every[kept] = self.classify(X[kept])
        if labels.size:
            labels[:] = every
        return int(every[0])
