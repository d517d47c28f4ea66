"""Convert scores without a model: between logits, probabilities, log-probabilities and odds.

    values (B, K)  float64, rows of one form; K classes of one distribution (softmax), or K independent ones (sigmoid)
    T              the temperature that logits are divided by

form               softmax                              sigmoid
logits z           ln p_k = u_k - ln sum_j e**u_j       p = 1 / (1 + e**-u),  u = z / T
probabilities p    rows sum to 1                        each independent
log_probabilities  ln p                                 ln p
odds               p_k / sum_(j != k) p_j               p / (1 - p) = e**u

In reverse, the logits for softmax are T ln p, the one of all equivalent rows whose e**u sum to 1, and for sigmoid
T ln(p / (1 - p)). Sources: Bridle, 1990, "Probabilistic interpretation of feedforward classification network outputs";
Guo et al., "On calibration of modern neural networks", ICML 2017, for T.

A logit of -inf is an impossible class. Differences such as 1 - p are not computed directly where they would lose
digits: near 1 they are sums over the other classes, or 1 - e**l by Kahan's (1 - v) l / ln v with v = e**l. exp and ln
come from kernels/exp_log.py, every sum runs in the order of classes, and NumPy computes only + - * /.
"""

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.arrays import Doubles
from service.softmax.kernels.exp_log import exp_forward, log1p_forward, log_forward

Form = Literal["logits", "probabilities", "log_probabilities", "odds"]
FORMS: Final[tuple[Form, ...]] = ("logits", "probabilities", "log_probabilities", "odds")
Scores = dict[Form, Doubles]

SMALL_TEMPERATURE: Final = (
    "Row {} has a logit that overflows when it is divided by the temperature; raise the temperature."
)
LARGE_TEMPERATURE: Final = (
    "Row {} has a logit that overflows when it is multiplied by the temperature; lower the temperature."
)
# Large enough for probabilities that a client rounded to float32, or to seven digits.
SUM_TOLERANCE: Final = 1e-6
# Half of it is within the domain of exp, and e to the whole of it is infinite.
EXPONENT_MAX: Final = 1400.0
LN_2: Final = 0.6931471805599453
SMALLEST_NORMAL: Final = np.finfo(np.float64).smallest_normal


def compute_score_forms(form: Form, values: Doubles, *, sigmoid: bool, temperature: float) -> Scores:
    """Return every form of scores; the given form is returned unchanged.

    Args:
        form: The form of the values.
        values: (B, K), without NaN. Logits of softmax and log-probabilities may be -inf, odds inf.
        sigmoid: Whether each number is independent; else the numbers of a row form one distribution.
        temperature: T > 0.

    Returns:
        (B, K) float64 of each form; infinite where the exact value is.

    Raises:
        UnacceptableError: The values are not of the form; the message names the first wrong row.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore", under="ignore"):
        if form == "logits":
            U = values / temperature
            _reject(np.isinf(U) & np.isfinite(values), SMALL_TEMPERATURE)
            scores = _from_logits(U, sigmoid=sigmoid)
        elif form == "probabilities":
            scores = _from_probabilities(values)
        elif form == "log_probabilities":
            scores = _from_logarithms(values)
        else:
            scores = _from_odds(values)
        if form != "logits":
            if not sigmoid:
                total, others = _sums(scores["probabilities"])
                _check_sums(total)
                scores["odds"] = scores["probabilities"] / others
            U = _log_odds(form, values, scores) if sigmoid else scores["log_probabilities"]
            scores["logits"] = temperature * U
            _reject(np.isinf(scores["logits"]) & np.isfinite(U), LARGE_TEMPERATURE)
    scores[form] = values
    return {name: scores[name] for name in FORMS}


def _from_logits(U: Doubles, *, sigmoid: bool) -> Scores:
    if sigmoid:
        e = _exp(-np.abs(U))
        P = np.where(U >= 0, 1, e) / (1 + e)
        return {
            "probabilities": P,
            "log_probabilities": np.minimum(U, 0) - _apply(log1p_forward, e),
            "odds": _exp_any(U),
        }
    top = U.max(axis=1, keepdims=True)
    _reject(np.isneginf(top), "Row {} has no possible class; at least one logit must be above -inf.")
    e = _exp(U - top)
    total, others = _sums(e)
    rest = np.take_along_axis(others, U.argmax(axis=1)[:, None], axis=1)
    share = np.where(rest <= 1, _apply(log1p_forward, np.minimum(rest, 1)), _log(1 + rest))
    return {"probabilities": e / total, "log_probabilities": (U - top) - share, "odds": e / others}


def _from_probabilities(P: Doubles) -> Scores:
    _reject((P < 0) | (P > 1), "Row {} has a probability outside 0 to 1.")
    return {"probabilities": P, "log_probabilities": _log(P), "odds": P / (1 - P)}


def _from_logarithms(L: Doubles) -> Scores:
    _reject(L > 0, "Row {} has the logarithm of a probability above 1.")
    P = _exp(L)
    return {"probabilities": P, "log_probabilities": L, "odds": P / _complement(L, P)}


def _from_odds(odds: Doubles) -> Scores:
    _reject(odds < 0, "Row {} has odds below 0.")
    certain = np.isposinf(odds)
    P = np.where(certain, 1, odds / (1 + odds))
    small = _log(np.minimum(odds, 1)) - _apply(log1p_forward, np.minimum(odds, 1))
    large = 0 - _apply(log1p_forward, 1 / np.maximum(odds, 1))
    return {"probabilities": P, "log_probabilities": np.where(odds > 1, large, small), "odds": odds}


def _log_odds(form: Form, values: Doubles, scores: Scores) -> Doubles:
    """Return ln(p / (1 - p)); from logarithms without a quotient that could overflow."""
    if form == "log_probabilities":
        return values - _log(_complement(values, scores["probabilities"]))
    return _log(scores["odds"])


def _complement(L: Doubles, P: Doubles) -> Doubles:
    """Return 1 - e**L (B, K) for L <= 0, with P = e**L."""
    inside = (P > 0) & (P < 1)
    kahan = (1 - P) * np.where(inside, L, 0) / _log(np.where(inside, P, 0.5))
    return np.where(inside, kahan, np.where(P > 0, 0 - L, 1))


def _sums(e: Doubles) -> tuple[Doubles, Doubles]:
    """Return the sum (B, 1) of each row, and for each of its numbers (B, K) the sum of the others."""
    zero = np.zeros((len(e), 1))
    before = np.add.accumulate(np.hstack([zero, e]), axis=1)
    after = np.add.accumulate(np.hstack([zero, e[:, ::-1]]), axis=1)[:, ::-1]
    return before[:, -1:], before[:, :-1] + after[:, 1:]


def _check_sums(total: Doubles) -> None:
    message = "Row {} has probabilities that do not sum to 1; softmax needs a distribution, sigmoid does not."
    _reject(np.abs(total - 1) > SUM_TOLERANCE, message)


def _reject(wrong: NDArray[np.bool_], message: str) -> None:
    """Raise UnacceptableError if a flag (B, 1) or (B, K) is set; the message is formatted with the row."""
    if wrong.any():
        raise UnacceptableError(message.format(int(np.argmax(wrong.any(axis=1)))))


def _apply(kernel: Any, values: Doubles) -> Doubles:  # noqa: ANN401  # a Numba dispatcher
    """Apply a kernel of flat arrays to a matrix."""
    flat = np.ascontiguousarray(values).reshape(-1)
    out = np.empty_like(flat)
    kernel(flat, out)
    return out.reshape(values.shape)


def _exp(U: Doubles) -> Doubles:
    """Return e**U for U up to 709, including -inf; below -708 it is 0."""
    out = np.empty(U.shape)
    exp_forward(np.ascontiguousarray(U), out)
    return out


def _exp_any(U: Doubles) -> Doubles:
    """Return e**U, infinite where that overflows."""
    half = _exp(np.clip(U, -EXPONENT_MAX, EXPONENT_MAX) / 2)
    return half * half


def _log(X: Doubles) -> Doubles:
    """Return ln X for X >= 0, including infinity and subnormal numbers."""
    small = X < SMALLEST_NORMAL
    scaled = np.where(small, X * 2.0**54, X)
    usual = (scaled > 0) & (scaled < np.inf)
    logarithm = _apply(log_forward, np.where(usual, scaled, 1)) - np.where(small, 54 * LN_2, 0)
    return np.where(usual, logarithm, np.where(X > 0, np.inf, -np.inf))
