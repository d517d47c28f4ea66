"""What stands between raw features and the weights: the input stage and the delta, checked and rounded for kernels."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.kernels.stages import stage_forward

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]

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
    """What learning adds to trained weights: `weights` (N, K) of the model's dtype, behind a `stage` of their own.

    The stage has a clip, so that weights of 0 add exactly 0 to every logit.
    """

    weights: Floats
    stage: Stage


class InputStage:
    """The rows that a model's weights see: staged, and with a delta the delta's staged features behind them.

    Args:
        stage: The stage in front of the weights, or None.
        delta: The stage in front of the delta, or None where there is no delta.
        n_features: N, the width of a raw row.
        dtype: Of rows and weights.
    """

    def __init__(self, stage: Stage | None, delta: Stage | None, n_features: int, dtype: np.dtype[np.floating]) -> None:
        identity = Stage(np.zeros(n_features), np.ones(n_features))
        stages = [stage] if delta is None else [stage or identity, delta]
        self._staging: Final = [staging(one, dtype) for one in stages if one is not None]
        self._n_features: Final = n_features
        self._dtype: Final = dtype

    def stagings(self) -> Floats:
        """Of each stage its mean, 1 / scale and limit, (S, 2 N + 1); S is 0 where the weights take raw rows."""
        width = 2 * self._n_features + 1
        rows = [np.concatenate([mean, inverse, [limit]]) for mean, inverse, limit in self._staging]
        return np.array(rows, self._dtype).reshape(len(rows), width)

    def rows(self, X: Floats) -> Floats:
        """The rows (B, N), or (B, 2 N) with a delta, of raw rows X (B, N); X itself where there is nothing to do.

        Raises:
            UnacceptableError: A value of X is not finite.
        """
        if not self._staging:
            return X
        out = np.empty((len(X), len(self._staging) * self._n_features), X.dtype)
        finite = True
        for number, numbers in enumerate(self._staging):
            finite &= stage_forward(X, *numbers, out, number * self._n_features)
        if not finite:
            raise UnacceptableError(NOT_NUMBERS)
        return out

    def backward(self, rows: Floats, gradient: Floats) -> Floats:
        """The gradient (B, N) of raw rows from that of their `rows`; both (B, N) or (B, 2 N). It is 0 where clipped."""
        if not self._staging:
            return gradient
        N, zero, parts = self._n_features, gradient.dtype.type(0), []
        for number, (_, inverse, limit) in enumerate(self._staging):
            part = slice(number * N, (number + 1) * N)
            parts.append(np.where(np.abs(rows[:, part]) < limit, gradient[:, part] * inverse, zero))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def owned(stage: Stage) -> Stage:
    """The same stage with arrays of its own, which nobody else writes to."""
    return Stage(np.array(stage.mean), np.array(stage.scale), stage.clip)


def staging(stage: Stage, dtype: np.dtype[np.floating]) -> tuple[Floats, Floats, float]:
    """The stage's mean and 1 / scale in the model's dtype, and its clip (infinite where there is none)."""
    clip = np.float64(np.inf if stage.clip is None else stage.clip)
    with np.errstate(over="ignore"):
        return stage.mean.astype(dtype), (1 / stage.scale).astype(dtype), float(clip.astype(dtype))


def representable(mean: Doubles, scale: Doubles, dtype: np.dtype[np.floating]) -> NDArray[np.bool_]:
    """Which features' mean and 1 / scale are finite, and 1 / scale more than 0, in a dtype."""
    with np.errstate(all="ignore"):
        inverse = (1 / scale).astype(dtype)
        return np.isfinite(mean.astype(dtype)) & np.isfinite(scale) & np.isfinite(inverse) & (inverse > 0)


def check_stage(stage: Stage, weights: Floats) -> None:
    """Raise ValueError where a stage cannot stand before weights (N, K)."""
    if stage.mean.shape != stage.scale.shape or stage.mean.shape != weights.shape[:1]:
        raise ValueError("the stage's mean and scale must be (N,)")
    if not (np.isfinite(stage.mean).all() and np.isfinite(stage.scale).all() and (stage.scale > 0).all()):
        raise ValueError("the stage's mean must be finite and its scale positive")
    if stage.clip is not None and not 0 < stage.clip < np.inf:
        raise ValueError("the stage's clip must be positive")
    limit = np.inf if stage.clip is None else np.float64(stage.clip).astype(weights.dtype)
    # An infinite 1 / scale makes NaN of a feature at its mean, and 1 / scale = 0 of one far from it.
    if not (representable(stage.mean, stage.scale, weights.dtype).all() and limit > 0):
        raise ValueError("the stage's mean, 1 / scale and clip must be representable in the weights' dtype")


def check_delta(delta: Delta, weights: Floats) -> None:
    """Raise ValueError where a delta cannot stand beside weights (N, K)."""
    if delta.weights.shape != weights.shape or delta.weights.dtype != weights.dtype:
        raise ValueError("the delta's weights must have the shape and dtype of the model's weights")
    if not np.isfinite(delta.weights).all():
        raise ValueError("the delta's weights must be finite")
    if delta.stage.clip is None:
        raise ValueError("the delta's stage must have a clip")
    check_stage(delta.stage, weights)
