"""Input stages and deltas: validate them, and apply them to rows, in a model's dtype."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.arrays import Doubles, Floats
from service.softmax.kernels.stages import stage_forward

NOT_NUMBERS: Final = "Every value must be finite and fit into the model's dtype."


@dataclass(frozen=True, eq=False)
class Stage:
    """The input stage x -> clip((x - mean) / scale): `mean` (N,), `scale` (N,) > 0, `clip` > 0 or None for no clip.

    Statistics are float64; a model rounds the mean and 1 / scale to its own dtype and multiplies.
    """

    mean: Doubles
    scale: Doubles
    clip: float | None = None


@dataclass(frozen=True, eq=False)
class Delta:
    """Learned weights beside trained ones: `weights` (N, K) of the model's dtype, with their own input `stage`.

    The stage has a clip, so that weights of 0 add exactly 0 to every logit.
    """

    weights: Floats
    stage: Stage


class InputStage:
    """Stage rows for a model's weights; with a delta, append the delta's staged features to each row.

    Args:
        stage: The stage of the weights, or None.
        delta_stage: The stage of the delta, or None without a delta.
        n_features: N, the width of a raw row.
        dtype: The dtype of rows and weights.
    """

    def __init__(
        self, stage: Stage | None, delta_stage: Stage | None, n_features: int, dtype: np.dtype[np.floating]
    ) -> None:
        stages = [stage] if delta_stage is None else [stage or identity_stage(n_features), delta_stage]
        self._rounded: Final = [round_stage(each, dtype) for each in stages if each is not None]
        self._n_features: Final = n_features
        self._dtype: Final = dtype

    def stagings(self) -> Floats:
        """Return mean, 1 / scale and limit of each stage, (S, 2 N + 1); S is 0 if the weights take raw rows."""
        width = 2 * self._n_features + 1
        rows = [np.concatenate([mean, inverse, [limit]]) for mean, inverse, limit in self._rounded]
        return np.array(rows, self._dtype).reshape(len(rows), width)

    def stage_rows(self, X: Floats) -> Floats:
        """Return the staged rows (B, N), or (B, 2 N) with a delta, of raw rows X (B, N); X itself without stages.

        Raises:
            UnacceptableError: A value of X is not finite.
        """
        if not self._rounded:
            return X
        out = np.empty((len(X), len(self._rounded) * self._n_features), X.dtype)
        finite = True
        for index, numbers in enumerate(self._rounded):
            finite &= stage_forward(X, *numbers, out, index * self._n_features)
        if not finite:
            raise UnacceptableError(NOT_NUMBERS)
        return out

    def backward(self, rows: Floats, gradient: Floats) -> Floats:
        """Return the gradient (B, N) of raw rows; it is 0 where a stage clips.

        Args:
            rows: The staged rows (B, N), or (B, 2 N) with a delta.
            gradient: The gradient of the staged rows, of the same shape.
        """
        if not self._rounded:
            return gradient
        N, zero, parts = self._n_features, gradient.dtype.type(0), []
        for index, (_, inverse, limit) in enumerate(self._rounded):
            part = slice(index * N, (index + 1) * N)
            parts.append(np.where(np.abs(rows[:, part]) < limit, gradient[:, part] * inverse, zero))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def identity_stage(n_features: int) -> Stage:
    """Return the stage that changes no value."""
    return Stage(np.zeros(n_features), np.ones(n_features))


def copy_stage(stage: Stage) -> Stage:
    """Return the stage with copies of its arrays."""
    return Stage(np.array(stage.mean), np.array(stage.scale), stage.clip)


def round_stage(stage: Stage, dtype: np.dtype[np.floating]) -> tuple[Floats, Floats, float]:
    """Return the stage's mean and 1 / scale in the model's dtype, and its clip; infinite without one."""
    clip = np.float64(np.inf if stage.clip is None else stage.clip)
    with np.errstate(over="ignore"):
        return stage.mean.astype(dtype), (1 / stage.scale).astype(dtype), float(clip.astype(dtype))


def representable_features(mean: Doubles, scale: Doubles, dtype: np.dtype[np.floating]) -> NDArray[np.bool_]:
    """Return (N,), whether a feature's mean and 1 / scale are finite in a dtype, and 1 / scale above 0."""
    with np.errstate(all="ignore"):
        inverse = (1 / scale).astype(dtype)
        return np.isfinite(mean.astype(dtype)) & np.isfinite(scale) & np.isfinite(inverse) & (inverse > 0)


def check_stage(stage: Stage, weights: Floats) -> None:
    """Raise ValueError unless a stage fits weights (N, K)."""
    if stage.mean.shape != stage.scale.shape or stage.mean.shape != weights.shape[:1]:
        raise ValueError("the stage's mean and scale must be (N,)")
    if not (np.isfinite(stage.mean).all() and np.isfinite(stage.scale).all() and (stage.scale > 0).all()):
        raise ValueError("the stage's mean must be finite and its scale positive")
    if stage.clip is not None and not 0 < stage.clip < np.inf:
        raise ValueError("the stage's clip must be positive")
    limit = np.inf if stage.clip is None else np.float64(stage.clip).astype(weights.dtype)
    # With an infinite 1 / scale a feature at its mean is NaN; with 1 / scale = 0 one far from it is.
    if not (representable_features(stage.mean, stage.scale, weights.dtype).all() and limit > 0):
        raise ValueError("the stage's mean, 1 / scale and clip must be representable in the weights' dtype")


def check_delta(delta: Delta, weights: Floats) -> None:
    """Raise ValueError unless a delta fits weights (N, K)."""
    if delta.weights.shape != weights.shape or delta.weights.dtype != weights.dtype:
        raise ValueError("the delta's weights must have the shape and dtype of the model's weights")
    if not np.isfinite(delta.weights).all():
        raise ValueError("the delta's weights must be finite")
    if delta.stage.clip is None:
        raise ValueError("the delta's stage must have a clip")
    check_stage(delta.stage, weights)
