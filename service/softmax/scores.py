"""Scores to probabilities and back, without a model: logits, probabilities, their logarithms and odds.

    values (B, K)  float64, rows of one form; K classes of which one holds (softmax), or K independent ones (sigmoid)
    T              the temperature that logits are divided by

form               softmax                              sigmoid
logits z           ln p_k = u_k - ln sum_j e**u_j       p = 1 / (1 + e**-u),  u = z / T
probabilities p    rows sum to 1                        each by itself
log_probabilities  ln p                                 ln p
odds               p_k / sum_(j != k) p_j               p / (1 - p) = e**u

Back from the others the logits are T ln p for softmax, the one of the equivalent rows whose e**u sum to 1, and
T ln(p / (1 - p)) for sigmoid. Sources: Bridle, 1990, "Probabilistic interpretation of feedforward
classification network outputs"; Guo et al., "On calibration of modern neural networks", ICML 2017, for T.

A logit of -inf is a class that cannot be. Differences such as 1 - p are never taken where they would lose the digits:
next to 1 they are sums over the other classes, or 1 - e**l by Kahan's (1 - v) l / ln v with v = e**l. exp and ln are
this repository's own, every sum runs in the order of classes, and NumPy does nothing but + - * /.
"""

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.input_stage import Doubles
from service.softmax.kernels.exp_log import exp_forward, log1p_forward, log_forward

Form = Literal["logits", "probabilities", "log_probabilities", "odds"]
FORMS: Final[tuple[Form, ...]] = ("logits", "probabilities", "log_probabilities", "odds")
Scores = dict[Form, Doubles]

SMALL_TEMPERATURE: Final = "Row {} has a logit that overflows when it is divided by the temperature; raise that."
LARGE_TEMPERATURE: Final = "Row {} has a logit that overflows when it is multiplied by the temperature; lower that."
# What a client rounded to float32, or wrote with seven digits, is a distribution still.
SUM_TOLERANCE: Final = 1e-6
# Half of it is as far as exp holds, and e to the whole of it is infinite.
EXPONENT_MAX: Final = 1400.0
LN_2: Final = 0.6931471805599453
SMALLEST_NORMAL: Final = np.finfo(np.float64).smallest_normal


def convert(form: Form, values: Doubles, *, sigmoid: bool, temperature: float) -> Scores:
    """Every form of some scores; the given one comes back as it is.

    Args:
        form: Which they are.
        values: (B, K), without NaN. Logits of softmax and log-probabilities may be -inf, odds inf.
        sigmoid: Whether each number stands by itself; else the numbers of a row share one distribution.
        temperature: T > 0.

    Returns:
        (B, K) float64 of each form, infinite where it is.

    Raises:
        UnacceptableError: The values are no such scores; the message names the first wrong row.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore", under="ignore"):
        if form == "logits":
            U = values / temperature
            _refuse(np.isinf(U) & np.isfinite(values), SMALL_TEMPERATURE)
            found = _of_logits(U, sigmoid=sigmoid)
        elif form == "probabilities":
            found = _of_probabilities(values)
        elif form == "log_probabilities":
            found = _of_logarithms(values)
        else:
            found = _of_odds(values)
        if form != "logits":
            if not sigmoid:
                total, others = _sums(found["probabilities"])
                _check_sums(total)
                found["odds"] = found["probabilities"] / others
            U = _log_odds(form, values, found) if sigmoid else found["log_probabilities"]
            found["logits"] = temperature * U
            _refuse(np.isinf(found["logits"]) & np.isfinite(U), LARGE_TEMPERATURE)
    found[form] = values
    return {name: found[name] for name in FORMS}


def _of_logits(U: Doubles, *, sigmoid: bool) -> Scores:
    if sigmoid:
        e = _exp(-np.abs(U))
        P = np.where(U >= 0, 1, e) / (1 + e)
        return {
            "probabilities": P,
            "log_probabilities": np.minimum(U, 0) - _by(log1p_forward, e),
            "odds": _exp_any(U),
        }
    top = U.max(axis=1, keepdims=True)
    _refuse(np.isneginf(top), "Row {} has no class that can be; leave one of its logits a number.")
    e = _exp(U - top)
    total, others = _sums(e)
    rest = np.take_along_axis(others, U.argmax(axis=1)[:, None], axis=1)
    share = np.where(rest <= 1, _by(log1p_forward, np.minimum(rest, 1)), _log(1 + rest))
    return {"probabilities": e / total, "log_probabilities": (U - top) - share, "odds": e / others}


def _of_probabilities(P: Doubles) -> Scores:
    _refuse((P < 0) | (P > 1), "Row {} has a probability outside of 0 to 1.")
    return {"probabilities": P, "log_probabilities": _log(P), "odds": P / (1 - P)}


def _of_logarithms(L: Doubles) -> Scores:
    _refuse(L > 0, "Row {} has the logarithm of a probability above 1.")
    P = _exp(L)
    return {"probabilities": P, "log_probabilities": L, "odds": P / _opposite(L, P)}


def _of_odds(odds: Doubles) -> Scores:
    _refuse(odds < 0, "Row {} has odds below 0.")
    certain = np.isposinf(odds)
    P = np.where(certain, 1, odds / (1 + odds))
    small = _log(np.minimum(odds, 1)) - _by(log1p_forward, np.minimum(odds, 1))
    large = 0 - _by(log1p_forward, 1 / np.maximum(odds, 1))
    return {"probabilities": P, "log_probabilities": np.where(odds > 1, large, small), "odds": odds}


def _log_odds(form: Form, values: Doubles, found: Scores) -> Doubles:
    """ln(p / (1 - p)), from logarithms without a quotient that could overflow."""
    if form == "log_probabilities":
        return values - _log(_opposite(values, found["probabilities"]))
    return _log(found["odds"])


def _opposite(L: Doubles, P: Doubles) -> Doubles:
    """1 - e**L (B, K) for L <= 0, with P = e**L."""
    inside = (P > 0) & (P < 1)
    kahan = (1 - P) * np.where(inside, L, 0) / _log(np.where(inside, P, 0.5))
    return np.where(inside, kahan, np.where(P > 0, 0 - L, 1))


def _sums(e: Doubles) -> tuple[Doubles, Doubles]:
    """The sum (B, 1) of each row, and for each of its numbers (B, K) the sum of the others."""
    zero = np.zeros((len(e), 1))
    before = np.add.accumulate(np.hstack([zero, e]), axis=1)
    after = np.add.accumulate(np.hstack([zero, e[:, ::-1]]), axis=1)[:, ::-1]
    return before[:, -1:], before[:, :-1] + after[:, 1:]


def _check_sums(total: Doubles) -> None:
    message = "Row {} has probabilities that do not sum to 1; softmax needs a distribution, sigmoid does not."
    _refuse(np.abs(total - 1) > SUM_TOLERANCE, message)


def _refuse(wrong: NDArray[np.bool_], message: str) -> None:
    """Raise UnacceptableError where a flag (B, 1) or (B, K) is set; the message has a place for the row."""
    if wrong.any():
        raise UnacceptableError(message.format(int(np.argmax(wrong.any(axis=1)))))


def _by(kernel: Any, values: Doubles) -> Doubles:  # noqa: ANN401  # a Numba dispatcher
    """A kernel of flat arrays, on a matrix."""
    flat = np.ascontiguousarray(values).reshape(-1)
    out = np.empty_like(flat)
    kernel(flat, out)
    return out.reshape(values.shape)


def _exp(U: Doubles) -> Doubles:
    """E**U for U up to 709, -inf included; below -708 it is 0."""
    out = np.empty(U.shape)
    exp_forward(np.ascontiguousarray(U), out)
    return out


def _exp_any(U: Doubles) -> Doubles:
    """E**U, infinite where that is too large for a float64."""
    half = _exp(np.clip(U, -EXPONENT_MAX, EXPONENT_MAX) / 2)
    return half * half


def _log(X: Doubles) -> Doubles:
    """Ln X for X >= 0, infinity and numbers below the normal ones included."""
    small = X < SMALLEST_NORMAL
    scaled = np.where(small, X * 2.0**54, X)
    usual = (scaled > 0) & (scaled < np.inf)
    logarithm = _by(log_forward, np.where(usual, scaled, 1)) - np.where(small, 54 * LN_2, 0)
    return np.where(usual, logarithm, np.where(X > 0, np.inf, -np.inf))
