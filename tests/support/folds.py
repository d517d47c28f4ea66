"""Small linear learners, rows and references for tests of folds."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from service.softmax.input_stage import Stage
from service.softmax.linear_learner import LinearLearner
from service.softmax.linear_model import LinearModel
from service.softmax.network_learner import NetworkLearner
from service.softmax.parameters import LinearParameters
from service.softmax.rule import Form, Rule, RuleName
from tests.support.reference import Array, ReferenceFold, targets

RULES: dict[RuleName, Rule] = {
    "sgd": Rule("sgd", rate=0.05, clip=2.0),
    "adagrad": Rule("adagrad", rate=0.3, offset=1e-8, forget=1e-3, start=0.5, step_clip=8.0, clip=2.0),
    "ftrl": Rule("ftrl", rate=0.3, offset=1.0, forget=1e-3, start=0.5, step_clip=8.0, clip=2.0),
    "newton": Rule(
        "newton", rate=4.0, floor=0.001, pull=0.5, forget=1e-3, surprise=10.0, start=0.1, step_clip=8.0, clip=1.25
    ),
}
FORMS: tuple[Form, ...] = ("plain", "running", "delta")
AnyLearner = LinearLearner | NetworkLearner


class Case:
    """A model of one head, rule and form with random weights and fixed stages, and rows with targets."""

    def __init__(
        self, head: str, rule: Rule, form: Form, *, N: int = 5, K: int = 3, B: int = 40, dtype: Any = np.float64,
        staged: bool = False, seed: int = 0, kind: str = "hard",
    ) -> None:  # fmt: skip
        rng, K = np.random.default_rng(seed), 1 if head == "sigmoid" else K
        self.head, self.rule, self.form, self.N, self.K, self.dtype = head, rule, form, N, K, np.dtype(dtype)
        self.weights = (rng.standard_normal((N, K)) * (form != "running") * 0.3).astype(dtype)
        self.bias = (rng.standard_normal(K) * 0.3).astype(dtype)
        self.own = Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N)), 3.0) if staged else None
        self.learned = Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N))) if form == "delta" else None
        self.X = (rng.standard_normal((B, N)) * 2 + rng.standard_normal(N)).astype(dtype)
        self.Y = targets(head, kind, B, K, rng)
        if head == "sigmoid" and kind == "hard":
            self.Y = self.Y.round()
        self.h = rng.uniform(0.2, 3, B)
        self.first: Array | None = None

    def learner(self) -> LinearLearner:
        """Return the learner."""
        start = LinearParameters(self.head, self.weights, self.bias, self.own)  # type: ignore[arg-type]  # a head's name
        return LinearLearner(start, self.form, self.rule, np.full(self.K, 0.5), self.learned, self.first)

    def reference(self) -> ReferenceFold:
        """Return the reference implementation of the learner."""
        own = None if self.own is None else (self.own.mean, self.own.scale, self.own.clip)
        learned = None if self.learned is None else (self.learned.mean, self.learned.scale, self.rule.clip)
        return ReferenceFold(
            self.head, self.rule, self.form, weights=self.weights, bias=self.bias, own=own, learned=learned
        )


def answer(learner: LinearLearner) -> LinearModel:
    """Return the current model of a learner."""
    return learner.parameters().build_model()


def fold_in_blocks(
    data: st.DataObject, learner: AnyLearner, new_learner: Callable[[], AnyLearner], case: Any
) -> tuple[Array, AnyLearner]:
    """Fold a case's rows in random blocks, across copies and checkpoints; return losses and the learner.

    Args:
        data: Draws the blocks.
        learner: The learner of the first block.
        new_learner: Returns a learner to restore a checkpoint into.
        case: Has rows `X`, targets `Y` and importance `h`.
    """
    B, losses = len(case.X), []
    for start, stop in pairwise(sorted({0, B, *data.draw(st.lists(st.integers(1, B - 1), max_size=5))})):
        losses.append(learner.fold(case.X[start:stop].copy(), Y=case.Y[start:stop], weights=case.h[start:stop]))
        if data.draw(st.booleans()):
            tensors, learner = learner.tensors(), new_learner()
            learner.restore(tensors)
        else:
            learner = learner.copy()
    return np.concatenate(losses), learner


def same_state(one: AnyLearner, other: AnyLearner) -> bool:
    """Return whether two learners have the same bits, including their parameters."""
    pairs = [(one.tensors()[name], tensor) for name, tensor in other.tensors().items()]
    pairs += list(zip(one.parameters().tensors(), other.parameters().tensors(), strict=True))
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def whole_matrices(stored: Array, D: int) -> Array:
    """Return Newton's full matrices (K, D, D) from their stored halves."""
    P, row = np.zeros((len(stored), D, D)), 0
    for i in range(D):
        P[:, i, : i + 1] = stored[:, row : row + i + 1]
        P[:, : i + 1, i] = stored[:, row : row + i + 1]
        row += 8 * (i // 8 + 1)
    return P
