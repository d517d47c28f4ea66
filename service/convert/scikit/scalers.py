"""Scalers and projections: steps of scikit-learn that are linear in each column, or mix columns."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.scikit.step import Step
from service.softmax.arrays import Doubles

# Smaller numbers of float64 have an infinite inverse.
SMALLEST_SCALE: Final = 1e-300

LinearStep = Callable[[Step, SymbolicMatrix], SymbolicMatrix]


def standard_scaler(step: Step, x: SymbolicMatrix) -> SymbolicMatrix:
    """Return (x - mean) / scale, as `StandardScaler` does."""
    n = x.width
    mean = step.numbers("mean_", n) if step.has("mean_") else np.zeros(n)
    centers = step.flag("with_mean", default=True)
    scale = step.numbers("scale_", n) if step.has("scale_") else np.ones(n)
    seen = step.get("n_samples_seen_")
    # Where numbers were missing, each column has a count of its own.
    rows = int(np.max(seen)) if isinstance(seen, int | float | np.number | np.ndarray) and np.size(seen) else None
    x.note_scaling(mean, scale, rows)
    return _divide(step, x, mean if centers else np.zeros(n), scale)


def min_max_scaler(step: Step, x: SymbolicMatrix) -> SymbolicMatrix:
    """Return x * scale + min, cut to the range with `clip`, as `MinMaxScaler` does."""
    factor, shift = step.numbers("scale_", x.width), step.numbers("min_", x.width)
    low, high = (float(end) for end in step.listed("feature_range"))
    with np.errstate(divide="ignore", invalid="ignore"):
        x.note_scaling(((low + high) / 2 - shift) / factor, (high - low) / 2 / factor)
    scaled = x.scale(factor, shift)
    if not step.flag("clip", default=False):
        return scaled
    return scaled.clip(np.full(x.width, low), np.full(x.width, high))


def max_abs_scaler(step: Step, x: SymbolicMatrix) -> SymbolicMatrix:
    """Return x / scale, as `MaxAbsScaler` does."""
    n = x.width
    scale = step.numbers("scale_", n)
    x.note_scaling(np.zeros(n), scale)
    scaled = _divide(step, x, np.zeros(n), scale)
    return scaled.clip(-np.ones(n), np.ones(n)) if step.flag("clip", default=False) else scaled


def robust_scaler(step: Step, x: SymbolicMatrix) -> SymbolicMatrix:
    """Return (x - center) / scale, as `RobustScaler` does."""
    n = x.width
    center = step.numbers("center_", n) if step.flag("with_centering", default=True) else np.zeros(n)
    scale = step.numbers("scale_", n) if step.flag("with_scaling", default=True) else np.ones(n)
    x.note_scaling(center, scale)
    return _divide(step, x, center, scale)


def _divide(step: Step, x: SymbolicMatrix, center: Doubles, scale: Doubles) -> SymbolicMatrix:
    if (np.abs(scale) < SMALLEST_SCALE).any():
        raise step.refuse("a scale is 0, or nearly so")
    return x.scale(1 / scale, -center / scale)


def pca(step: Step, x: SymbolicMatrix) -> SymbolicMatrix:
    """Return (x - mean) @ componentsᵀ, divided by the deviation with `whiten`, as `PCA` does."""
    components = step.numbers("components_", None, x.width)
    mean = step.numbers("mean_", x.width) if step.has("mean_") else np.zeros(x.width)
    matrix = components.T
    if step.flag("whiten", default=False):
        variance = step.numbers("explained_variance_", len(components))
        # The floor of scikit-learn, in the precision of its numbers.
        floor = np.finfo(step.need("explained_variance_").dtype).eps
        matrix = matrix / np.maximum(np.sqrt(np.maximum(variance, 0)), floor)
    return x.mix(matrix, -(mean @ matrix))


def truncated_svd(step: Step, x: SymbolicMatrix) -> SymbolicMatrix:
    """Return x @ componentsᵀ, as `TruncatedSVD` does."""
    components = step.numbers("components_", None, x.width)
    return x.mix(components.T, np.zeros(len(components)))


LINEAR_STEPS: Final[Mapping[str, LinearStep]] = {
    "MaxAbsScaler": max_abs_scaler,
    "MinMaxScaler": min_max_scaler,
    "PCA": pca,
    "RobustScaler": robust_scaler,
    "StandardScaler": standard_scaler,
    "TruncatedSVD": truncated_svd,
}
