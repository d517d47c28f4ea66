"""An explanation as arrays: what explain.py computes, and everybody else reads."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.classifier import OVERFLOW
from service.softmax.input_stage import Doubles, Floats

NONE: Final = np.empty(0, np.intp)


class Explanation(NamedTuple):
    """Explanations of B rows, in the model's dtype but for labels and losses.

    Attributes:
        labels: (B,) int64, as `classify` gives them.
        logits: Z (B, K).
        probabilities: P (B, C), C = 2 for the sigmoid head, else K.
        contributions: (B, K, N), or None for a network; with the bias each logit's add up to it, but for rounding.
        sensitivities: (B, C, N), dP_c / dx_j.
        losses: (B,) float64, or None without targets: of the answered probabilities.
        loss_gradients: (B, N), dL / dx_j, or None without targets.
        over: The rows of which a number overflows the model's dtype. Beside labels and probabilities theirs are unset.
        exact: The explanations in float64 of those rows, in their order; None where there are none.
    """

    labels: NDArray[np.int64]
    logits: Floats
    probabilities: Floats
    contributions: Floats | None
    sensitivities: Floats
    losses: Doubles | None
    loss_gradients: Floats | None
    over: NDArray[np.intp]
    exact: "Explanation | None" = None

    def rounded(self) -> "Explanation":
        """The same with the numbers of the rows that overflow rounded to the model's dtype.

        Raises:
            UnacceptableError: One of them cannot be.
        """
        if self.exact is None:
            return self
        for name in ("logits", "contributions", "sensitivities", "losses", "loss_gradients"):
            own, exact = getattr(self, name), getattr(self.exact, name)
            if own is not None:
                with np.errstate(over="ignore"):
                    own[self.over] = exact
                if not np.isfinite(own[self.over]).all():
                    raise UnacceptableError(OVERFLOW)
        return self._replace(over=NONE, exact=None)
