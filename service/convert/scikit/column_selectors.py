"""Selectors of scikit-learn: which columns they keep."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.convert.scikit.step import Step
from service.softmax.arrays import Doubles

Mask = NDArray[np.bool_]
Selector = Callable[[Step, int], Mask]

# The threshold of `SelectFromModel` for models with an L1 penalty, which make coefficients zero.
L1_THRESHOLD: Final = 1e-5


def variance_threshold(step: Step, n: int) -> Mask:
    """Return which columns `VarianceThreshold` keeps."""
    kept: Mask = step.numbers("variances_", n) > _number(step, "threshold", 0.0)
    return kept


def select_k_best(step: Step, n: int) -> Mask:
    """Return which columns `SelectKBest` keeps."""
    k = step.get("k", 10)
    if isinstance(k, str):
        return np.ones(n, np.bool_)
    mask = np.zeros(n, np.bool_)
    count = step.count("k")
    if count:
        mask[np.argsort(_scores(step, n), kind="stable")[-count:]] = True
    return mask


def select_percentile(step: Step, n: int) -> Mask:
    """Return which columns `SelectPercentile` keeps: those above a percentile, and the first of those at it."""
    percentile = _number(step, "percentile", 10)
    if not 0 < percentile < 100:  # noqa: PLR2004  # per cent
        return np.full(n, percentile > 0)
    scores = _scores(step, n)
    threshold = np.percentile(scores, 100 - percentile)
    mask: Mask = scores > threshold
    ties = np.flatnonzero(scores == threshold)
    mask[ties[: int(n * percentile / 100) - int(mask.sum())]] = True
    return mask


def select_fpr(step: Step, n: int) -> Mask:
    """Return which columns `SelectFpr` keeps."""
    kept: Mask = _p_values(step, n) < _number(step, "alpha", 0.05)
    return kept


def select_fdr(step: Step, n: int) -> Mask:
    """Return which columns `SelectFdr` keeps (Benjamini and Hochberg, 1995)."""
    p = _p_values(step, n)
    ordered = np.sort(p)
    below = ordered[ordered <= _number(step, "alpha", 0.05) / n * np.arange(1, n + 1)]
    kept: Mask = p <= below.max() if below.size else np.zeros(n, np.bool_)
    return kept


def select_fwe(step: Step, n: int) -> Mask:
    """Return which columns `SelectFwe` keeps."""
    kept: Mask = _p_values(step, n) < _number(step, "alpha", 0.05) / n
    return kept


def recursive_elimination(step: Step, n: int) -> Mask:
    """Return which columns `RFE` and `SequentialFeatureSelector` keep."""
    kept: Mask = step.numbers("support_", n) != 0
    return kept


def select_from_model(step: Step, n: int) -> Mask:
    """Return which columns `SelectFromModel` keeps by the coefficients or importances of its estimator."""
    if step.get("importance_getter", "auto") != "auto":
        raise step.refuse('its option "importance_getter" is not supported')
    estimator = step.child(step.need("estimator_") if step.has("estimator_") else step.need("estimator"))
    scores = _importances(step, estimator, n)
    mask = np.ones(n, np.bool_)
    if step.has("max_features"):
        mask[:] = False
        name = "max_features_" if step.has("max_features_") else "max_features"
        mask[np.argsort(-scores, kind="stable")[: step.count(name)]] = True
    mask[scores < _threshold(step, estimator, scores)] = False
    return mask


def _importances(step: Step, estimator: Step, n: int) -> Doubles:
    for name in ("coef_", "feature_importances_"):
        value = estimator.get(name)
        if isinstance(value, np.ndarray):
            if value.ndim == 1:
                return np.abs(estimator.numbers(name, n))
            order = step.get("norm_order", 1)
            return np.asarray(np.linalg.norm(estimator.numbers(name, None, n), axis=0, ord=order))
    raise step.refuse(f"its estimator {estimator.name} has no coefficients that can be read; convert it in memory")


def _threshold(step: Step, estimator: Step, scores: Doubles) -> float:
    threshold = step.get("threshold")
    if threshold is None:
        threshold = L1_THRESHOLD if _has_l1_penalty(estimator) else "mean"
    if isinstance(threshold, int | float | np.number):
        return float(threshold)
    factor, star, reference = str(threshold).rpartition("*")
    if reference.strip() not in {"mean", "median"}:
        raise step.refuse('its option "threshold" is not supported with this value')
    try:
        scale = float(factor) if star else 1.0
    except ValueError:
        raise step.refuse('its option "threshold" is not supported with this value') from None
    return scale * float(np.mean(scores) if reference.strip() == "mean" else np.median(scores))


def _has_l1_penalty(estimator: Step) -> bool:
    if estimator.get("penalty") == "l1" or "Lasso" in estimator.name:
        return True
    ratios = {"ElasticNet": "l1_ratio", "ElasticNetCV": "l1_ratio_"}
    ratios |= {"LogisticRegression": "l1_ratio", "LogisticRegressionCV": "l1_ratio_"}
    ratio = estimator.get(ratios.get(estimator.name, ""))
    return ratio is not None and bool(np.all(np.isclose(np.asarray(ratio, np.float64), 1.0)))


def _scores(step: Step, n: int) -> Doubles:
    """Return the scores (n,), with the least number in place of NaN."""
    scores = step.need("scores_")
    if not isinstance(scores, np.ndarray) or scores.shape != (n,) or scores.dtype.kind not in "iuf":
        raise step.refuse('its attribute "scores_" is not one number for each column')
    cleaned = scores.astype(np.float64)
    cleaned[np.isnan(cleaned)] = np.finfo(scores.dtype).min if scores.dtype.kind == "f" else 0
    return cleaned


def _p_values(step: Step, n: int) -> Doubles:
    values = step.need("pvalues_")
    if not isinstance(values, np.ndarray) or values.shape != (n,) or values.dtype.kind != "f":
        raise step.refuse('its attribute "pvalues_" is not one number for each column')
    return values.astype(np.float64)


def _number(step: Step, name: str, default: float) -> float:
    value = step.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise step.refuse(f'its option "{name}" is not a number')
    return float(value)


SELECTORS: Final[Mapping[str, Selector]] = {
    "RFE": recursive_elimination,
    "RFECV": recursive_elimination,
    "SelectFdr": select_fdr,
    "SelectFpr": select_fpr,
    "SelectFromModel": select_from_model,
    "SelectFwe": select_fwe,
    "SelectKBest": select_k_best,
    "SelectPercentile": select_percentile,
    "SequentialFeatureSelector": recursive_elimination,
    "VarianceThreshold": variance_threshold,
}


def choose_columns(step: Step, n: int) -> Mask:
    """Return which of n columns a selector keeps, (n,) bool.

    Raises:
        ConversionError: Its attributes do not tell.
    """
    if step.part.support is not None:
        mask = np.asarray(step.part.support())
        if mask.shape != (n,) or mask.dtype != np.bool_:
            raise step.refuse("it keeps columns that its input does not have")
        return mask
    return SELECTORS[step.name](step, n)
