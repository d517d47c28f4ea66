"""The safe door to the kernels: a model checks what it is given, calls a kernel, and hands out fresh arrays.

Kernels trust their arguments (they have no bounds checks); nothing outside this room calls them. A model is immutable
and can be used from several threads at a time.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.functions import MULTILABEL, NOT_FINITE, OVR, SIGMOID, SOFTMAX, predict_forward, stage_forward
from service.softmax.loss import cross_entropy_backward, cross_entropy_forward, log_probabilities_forward
from service.softmax.single import Single
from service.softmax.tile import linear_forward, pack

Head = Literal["softmax", "sigmoid", "multilabel", "ovr"]
Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]

OVERFLOW: Final = "A row has values too large for this model: its logits overflow; scale the features."
# Numba's dispatcher remembers an array's type without its byte order and alignment and would read such an array as it
# stands (52 ns of the 820 of a predict of one row).
LAYOUT: Final = "X must be an aligned, writable, C-contiguous array of the model's dtype"
NOT_NUMBERS: Final = "Every value must be finite and fit into the model's dtype."
NO_LABELS: Final = np.empty(0, np.int64)

HEADS: Final[dict[str, int]] = {"softmax": SOFTMAX, "sigmoid": SIGMOID, "multilabel": MULTILABEL, "ovr": OVR}


class Gradients(NamedTuple):
    """Derivatives of the summed loss of B rows: `dW` (N, K), `db` (K,), `dX` (B, N), and `losses` (B,) float64."""

    dW: Floats
    db: Floats
    dX: Floats
    losses: Doubles


@dataclass(frozen=True, eq=False)
class Stage:
    """The input stage x -> clip((x - mean) / scale): `mean` (N,), `scale` (N,) > 0, `clip` > 0 or None for no clip.

    Statistics are float64; a model rounds the mean and 1 / scale to its own dtype and multiplies.
    """

    mean: Doubles
    scale: Doubles
    clip: float | None = None


class Model:
    """A linear classifier P = head(stage(X) W + b), served by the deterministic kernels.

    Args:
        head: "softmax", "sigmoid" (one logit, two classes), "multilabel" or "ovr".
        weights: W (N, K), float32 or float64, feature-major; K = 1 for the sigmoid head.
        bias: b (K,), of the same dtype.
        stage: The input stage, or None where the weights take raw features.

    Raises:
        ValueError: The shapes or dtypes contradict each other, or a value is not finite.
    """

    def __init__(self, head: Head, weights: Floats, bias: Floats, stage: Stage | None = None) -> None:
        _check(head, weights, bias, stage)
        self.head: Final = head
        self.weights: Final = np.array(weights, order="C")
        self.bias: Final = np.array(bias)
        self.stage: Final = None if stage is None else Stage(np.array(stage.mean), np.array(stage.scale), stage.clip)
        self.dtype: Final = self.weights.dtype
        self.n_features, self.n_logits = self.weights.shape
        self.n_classes: Final = 2 if head == "sigmoid" else self.n_logits
        self._code: Final = HEADS[head]
        self._panels: Final = pack(self.weights, self.bias)
        self._staging: Final = None if self.stage is None else _staging(self.stage, self.dtype)

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

    def single(self) -> Single | None:
        """Buffers to predict one row at a time in; None where the model has a stage, or too many logits for that."""
        if self._staging is not None or not Single.fits(self._panels):
            return None
        return Single(self._panels, self._code, self.n_logits, self.n_classes)

    def logits(self, X: Floats) -> Floats:
        """Z (B, K) of X (B, N); infinite where they overflow the model's dtype."""
        self._check_rows(X)
        Z = np.empty((len(X), self._panels.shape[0] * self._panels.shape[2]), self.dtype)
        linear_forward(self._staged(X), self._panels, Z)
        return np.ascontiguousarray(Z[:, : self.n_logits])

    def log_probabilities(self, X: Floats) -> Doubles:
        """The logarithms (B, K) float64 of the probabilities of X (B, N), finite where the logits are."""
        out = np.empty((len(X), self.n_classes))
        log_probabilities_forward(self._finite_logits(X), self._code, out)
        return out

    def losses(self, X: Floats, Y: Doubles) -> Doubles:
        """The training loss (B,) of X (B, N) for the targets Y (B, K), K = 1 for sigmoid: see loss.py."""
        Z = self._finite_logits(X)
        losses = np.empty(len(X))
        cross_entropy_forward(Z, self._targets(Y, len(X)), self._code, losses)
        return losses

    def gradients(self, X: Floats, Y: Doubles) -> Gradients:
        """Derivatives of the summed loss of X (B, N), B >= 1, for the targets Y (B, K): see loss.py.

        dW = staged(X)^T dZ and dX = dZ W^T, through the stage's scale; where the stage clips, dX is 0.
        """
        Z, Y = self._finite_logits(X), self._targets(Y, len(X))
        staged = self._staged(X)
        losses, dZ = np.empty(len(X)), np.empty_like(Z)
        cross_entropy_forward(Z, Y, self._code, losses)
        cross_entropy_backward(Z, Y, self._code, dZ)
        dW = multiply(np.ascontiguousarray(staged.T), dZ)
        db = multiply(np.ones((1, len(X)), self.dtype), dZ)[0]
        dX = multiply(dZ, np.ascontiguousarray(self.weights.T))
        if self._staging is not None:
            _, inverse, limit = self._staging
            dX = np.where(np.abs(staged) < limit, dX * inverse, self.dtype.type(0))
        return Gradients(dW, db, dX, losses)

    def _predict(self, X: Floats, labels: NDArray[np.int64]) -> tuple[Floats, int]:
        """P (B, n_classes) and the first row's label; labels (B,) is written, or is empty where none are wanted."""
        B, N = X.shape
        if self.n_features != N:
            raise ValueError(f"X has {N} features, the model {self.n_features}")
        if (X.dtype is not self.dtype and X.dtype != self.dtype) or not X.flags.carray:
            raise TypeError(LAYOUT)
        staged = X if self._staging is None else self._staged(X)
        P = np.empty((B, self.n_classes), self.dtype)
        label = predict_forward(staged, self._panels, self._code, self.n_logits, P, labels)
        if label == NOT_FINITE:
            return P, self._predict_again(X, P, labels)
        return P, label

    def _staged(self, X: Floats) -> Floats:
        if self._staging is None:
            return X
        out = np.empty_like(X)
        if not stage_forward(X, *self._staging, out):
            raise UnacceptableError(NOT_NUMBERS)
        return out

    def _check_rows(self, X: Floats) -> None:
        if X.ndim != 2 or X.shape[0] < 1 or X.shape[1] != self.n_features:  # noqa: PLR2004  # a matrix
            raise ValueError(f"X must be (at least 1, {self.n_features}), not {X.shape}")
        if X.dtype != self.dtype or not X.flags.carray:
            raise TypeError(LAYOUT)

    def _finite_logits(self, X: Floats) -> Floats:
        Z = self.logits(X)
        if not np.isfinite(Z).all():
            raise UnacceptableError(OVERFLOW)
        return Z

    def _targets(self, Y: Doubles, rows: int) -> Doubles:
        if Y.shape != (rows, self.n_logits) or Y.dtype != np.float64:
            raise ValueError(f"Y must be float64 of shape {(rows, self.n_logits)}, not {Y.dtype} of {Y.shape}")
        return np.require(Y, requirements=("C", "A", "W"))

    @cached_property
    def _double(self) -> "Model":
        """The same model in float64, for rows that overflow float32."""
        return Model(self.head, self.weights.astype(np.float64), self.bias.astype(np.float64), self.stage)

    def _predict_again(self, X: Floats, P: Floats, labels: NDArray[np.int64]) -> int:
        """Compute the rows of P and labels again whose logits overflowed; returns the first row's label."""
        if not np.isfinite(X).all():  # asked here alone: such a value makes its row's logits infinite or NaN
            raise UnacceptableError(NOT_NUMBERS)
        if self.dtype == np.float64:
            raise UnacceptableError(OVERFLOW)
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


def multiply(A: Floats, B: Floats) -> Floats:
    """A (M, J) times B (J, K), J >= 1, by the tile kernel: the sum over J runs in order, whatever the processor is."""
    panels = pack(B, np.zeros(B.shape[1], B.dtype))
    out = np.empty((len(A), panels.shape[0] * panels.shape[2]), B.dtype)
    linear_forward(A, panels, out)
    return np.ascontiguousarray(out[:, : B.shape[1]])


def _staging(stage: Stage, dtype: np.dtype[np.floating]) -> tuple[Floats, Floats, float]:
    """The stage's mean and 1 / scale in the model's dtype, and its clip (infinite where there is none)."""
    clip = np.float64(np.inf if stage.clip is None else stage.clip)
    with np.errstate(over="ignore"):
        return stage.mean.astype(dtype), (1 / stage.scale).astype(dtype), float(clip.astype(dtype))


def _check(head: str, weights: Floats, bias: Floats, stage: Stage | None) -> None:
    """Raise ValueError where a model cannot be made of these."""
    if head not in HEADS:
        raise ValueError("head must be softmax, sigmoid, multilabel or ovr")
    if weights.dtype not in (np.float32, np.float64) or weights.dtype != bias.dtype:
        raise ValueError("weights and bias must both be float32 or both float64")
    if weights.ndim != 2 or 0 in weights.shape or bias.shape != weights.shape[1:]:  # noqa: PLR2004  # a matrix
        raise ValueError("weights must be (N, K) and bias (K,), with N and K at least 1")
    if head == "sigmoid" and weights.shape[1] != 1:
        raise ValueError("a sigmoid head has one logit")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise ValueError("weights and bias must be finite")
    if stage is not None:
        _check_stage(stage, weights)


def _check_stage(stage: Stage, weights: Floats) -> None:
    """Raise ValueError where a stage cannot stand before these weights."""
    if stage.mean.shape != stage.scale.shape or stage.mean.shape != weights.shape[:1]:
        raise ValueError("the stage's mean and scale must be (N,)")
    if not (np.isfinite(stage.mean).all() and np.isfinite(stage.scale).all() and (stage.scale > 0).all()):
        raise ValueError("the stage's mean must be finite and its scale positive")
    if stage.clip is not None and not 0 < stage.clip < np.inf:
        raise ValueError("the stage's clip must be positive")
    mean, inverse, limit = _staging(stage, weights.dtype)
    # An infinite 1 / scale makes NaN of a feature at its mean, and 1 / scale = 0 of one far from it.
    if not (np.isfinite(mean).all() and np.isfinite(inverse).all() and (inverse > 0).all() and limit > 0):
        raise ValueError("the stage's mean, 1 / scale and clip must be representable in the weights' dtype")
