"""Explanations as arrays."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.classifier import LOGIT_OVERFLOW

NO_ROWS: Final = np.empty(0, np.intp)


class Expert(NamedTuple):
    """A member of the average that a mixture answers with.

    Attributes:
        name: "mixture" for the learned mixture of the experts, "frequencies" for the class frequencies, or the name of
            an expert; see mixture_model.py.
        weight: The weight of its probabilities. All weights sum to 1, or are 0 before the first row that is learned.
        exponent: The exponent of its probabilities in the learned mixture; None if it takes no part in that.
    """

    name: str
    weight: float
    exponent: float | None


class Explanation(NamedTuple):
    """Explanations of B rows, in the model's dtype except labels and losses.

    Attributes:
        labels: (B,) int64, as in `classify`.
        logits: Z (B, K).
        probabilities: P (B, C), C = 2 for the sigmoid head, else K.
        contributions: (B, K, N), or None for a network or a mixture; with the bias they sum to the logits, except for
            rounding.
        sensitivities: (B, C, N), dP_c / dx_j.
        losses: (B,) float64 of the returned probabilities, or None without targets.
        loss_gradients: (B, N), dL / dx_j, or None without targets.
        over: The rows with a number that overflows the model's dtype. Only their labels and probabilities are set.
        exact: The float64 explanations of those rows, in their order; None if there are none.
        experts: (B, E, C), the probabilities of the experts of a mixture before a calibration; None for another model.
    """

    labels: Integers
    logits: Floats
    probabilities: Floats
    contributions: Floats | None
    sensitivities: Floats
    losses: Doubles | None
    loss_gradients: Floats | None
    over: NDArray[np.intp]
    exact: "Explanation | None" = None
    experts: Floats | None = None

    def round_to_dtype(self) -> "Explanation":
        """Return the explanation with the float64 rows rounded to the model's dtype.

        Raises:
            UnacceptableError: A number overflows that dtype.
        """
        if self.exact is None:
            return self
        for name in ("logits", "contributions", "sensitivities", "losses", "loss_gradients"):
            own, exact = getattr(self, name), getattr(self.exact, name)
            if own is not None:
                with np.errstate(over="ignore"):
                    own[self.over] = exact
                if not np.isfinite(own[self.over]).all():
                    raise UnacceptableError(LOGIT_OVERFLOW)
        return self._replace(over=NO_ROWS, exact=None)
