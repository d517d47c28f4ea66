"""Linear models that learn from rows.

    z = stage(x) W + b + delta.stage(x) D      the logits, as in linear_model.py

The form decides which weights learn, besides the bias (networks have the form layers, see network_learner.py):

    plain      W, on the features that it takes
    running    W, from 0, with a stage whose mean and scale follow the learned rows
    delta      D, from 0, with a fixed stage; W does not change

A `LinearLearner` owns the arrays of kernels/fold.py: float64 masters, the served weights in the panels of
kernels/matmul.py, the rule's sums, statistics and counts. Its stored tensors have no panels, because the width of a
panel depends on the processor. So a checkpoint is the same on every processor.
"""

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.added_classes import extend_layer
from service.softmax.arrays import Doubles, Floats
from service.softmax.cache_lines import align_to_cache_line
from service.softmax.fold_arguments import FoldArguments
from service.softmax.input_stage import Delta, Stage, identity_stage, representable_features, round_stage
from service.softmax.kernels import fold
from service.softmax.kernels.matmul import pack, unpack
from service.softmax.kernels.newton import curvature_start, stored_size
from service.softmax.learner import RULES, Learner, rule_constants
from service.softmax.learner_tensors import check_squares
from service.softmax.parameters import LinearParameters
from service.softmax.rule import RULES_WITH_SQUARES, Form, Rule

FORMS: Final[dict[str, int]] = {"plain": fold.PLAIN, "running": fold.RUNNING, "delta": fold.DELTA}


class LinearLearner(Learner[LinearParameters]):
    """A linear model that learns.

    Args:
        start: The first parameters. The form delta starts at `start.delta`, or at 0 with `learned_stage`.
        form: Which weights learn.
        rule: The learning rule.
        thresholds: (K,), the p from which a class is predicted; only a multilabel head uses them.
        learned_stage: The stage of the form delta if `start` has no delta. A feature whose numbers cannot be
            represented in the model's dtype is not learned from.
        first_squares: (N + 1,), the first G of the bias and of each feature; None for `rule.start`. What `forget`
            takes of these does not return.

    Raises:
        ValueError: `start` is no model, or contradicts the form.
    """

    def __init__(  # noqa: PLR0917  # each form takes some of them
        self,
        start: LinearParameters,
        form: Form,
        rule: Rule,
        thresholds: Doubles,
        learned_stage: Stage | None = None,
        first_squares: Floats | None = None,
    ) -> None:
        super().__init__(start, form, rule, thresholds)
        self._learned_stage: Final = start.delta.stage if start.delta is not None else learned_stage
        if (form == "delta") != (self._learned_stage is not None):
            raise ValueError("the form delta needs a stage of its own; no other form has one")
        if form == "running" and start.weights.any():
            raise ValueError("the form running needs start weights of 0")
        wide = (self.n_features + 7) // 8 * 8
        self._fixed = np.zeros((4, wide), self.dtype)
        self._own_clip, self._usable = self._set_stages()
        self._first_squares = check_squares(first_squares, self.n_features, self.dtype)
        self._constants = self._list_constants()
        self._statistics = np.zeros((2, wide))
        self._regret = np.zeros(1)
        self._set_masters(self._first_masters())
        self._reset_sums()

    def set_rule(self, rule: Rule, first_squares: Floats | None = None) -> None:
        """Continue with another rule or other constants, as `Learner.set_rule`.

        A rule that does not limit the regret forgets it, because a checkpoint would not hold it.

        Args:
            rule: The rule.
            first_squares: (N + 1,), as in the constructor; None keeps the current ones.
        """
        if first_squares is not None:
            self._first_squares = check_squares(first_squares, self.n_features, self.dtype)
        super().set_rule(rule)
        # Computed once, because it takes as long as a step of a small model.
        self._constants = self._list_constants()
        if rule.regret == 0:
            self._regret[:] = 0

    def parameters(self) -> LinearParameters:
        """Return copies of the current parameters, in the model's dtype."""
        rows, N = unpack(self._panels, self.n_logits), self.n_features
        start, weights = self._start, rows[1 : N + 1].copy()
        stage, delta = start.stage, None
        if self.form == "running":
            stage, known = self._running_stage()
            weights[~known] = 0
        if self._learned_stage is not None:
            learned = self._learned_stage
            mean, scale = np.where(self._usable, learned.mean, 0.0), np.where(self._usable, learned.scale, 1.0)
            delta = Delta(rows[N + 1 :].copy(), Stage(mean, scale, self.rule.clip))
        return LinearParameters(start.head, weights, rows[0].copy(), stage, delta)

    def tensors(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Return copies of all changing arrays, for a checkpoint; `restore` restores them bit by bit.

        Returns:
            `masters` (N + 1, K) and `statistics` (2, N) float64, `progress` (8,) and `recent` (2, R) float64; for
            adagrad and ftrl `squares` (N + 1, K) of the model's dtype, for newton `curvature` (K, S) float64; if the
            rule limits the regret, `regret` (1,) float64.
        """
        N, K = self.n_features, self.n_logits
        tensors: dict[str, NDArray[np.floating[Any]]] = {
            "masters": unpack(self._masters, K),
            "statistics": self._statistics[:, :N].copy(),
            **self._count_tensors(),
        }
        if self.rule.name in RULES_WITH_SQUARES:
            tensors["squares"] = unpack(self._squares, K)
        if self.rule.name == "newton":
            tensors["curvature"] = self._curvature.copy()
        if self.rule.regret > 0:
            tensors["regret"] = self._regret.copy()
        return tensors

    def _fold_rows(
        self, X: Floats, arguments: FoldArguments, losses: Doubles, scores: Floats, *, learning: bool
    ) -> None:
        counts = self._counts
        fold.fold_forward(
            X, *arguments, self._head, RULES[self.rule.name], FORMS[self.form], learning, self._constants,
            self.thresholds, self._panels, self._masters, self._squares, self._curvature, self._fixed, self._statistics,
            self._regret, counts.totals, counts.recent, counts.window, losses, scores,
        )  # fmt: skip

    def _extend_weights(self, tensors: dict[str, NDArray[np.floating[Any]]], count: int) -> None:
        K = tensors["masters"].shape[1]
        self._set_masters(extend_layer(tensors["masters"], count))
        self._reset_sums()
        for name, axis in (("squares", 1), ("curvature", 0)):
            if name in tensors:
                sums = self.tensors()[name]
                sums[(slice(None),) * axis + (slice(K),)] = tensors[name]
                self._restore_weights({name: sums})

    def _restore_weights(self, tensors: dict[str, NDArray[np.floating[Any]]]) -> None:
        if "masters" in tensors:
            self._set_masters(tensors["masters"].astype(np.float64, copy=False))
        if "statistics" in tensors:
            self._statistics[:, : self.n_features] = tensors["statistics"]
        if "squares" in tensors:
            self._squares = align_to_cache_line(pack(tensors["squares"][1:], tensors["squares"][0]))
        if "curvature" in tensors:
            self._curvature[:] = tensors["curvature"]
        if "regret" in tensors:
            self._regret[:] = tensors["regret"]

    def _new(self) -> "LinearLearner":
        return LinearLearner(
            self._start, self.form, self.rule, self.thresholds, self._learned_stage, self._first_squares
        )

    def _list_constants(self) -> Doubles:
        """Return the constants of the rule; G does not return to `start` if it began elsewhere."""
        begins_elsewhere = self._first_squares is not None and self.rule.name in RULES_WITH_SQUARES
        return rule_constants(replace(self.rule, start=0.0) if begins_elsewhere else self.rule, self._own_clip)

    def _running_stage(self) -> tuple[Stage, NDArray[np.bool_]]:
        """Return the running statistics as a stage, and which features have a known scale; as in the kernel."""
        mean, squares = self._statistics[:, : self.n_features]
        with np.errstate(all="ignore"):
            variance = squares / self._counts.totals[fold.SEEN]
            scale = np.sqrt(variance)
            known = (variance > mean * mean * fold.VARIANCE_MIN) & representable_features(mean, scale, self.dtype)
            known &= 1 / scale < fold.INVERSE_MAX[self.dtype.itemsize]
        return Stage(mean.copy(), np.where(known, scale, 1.0), self.rule.clip), known

    def _first_masters(self) -> Doubles:
        """Return the first masters (N + 1, K): the bias, then the weights that learn."""
        start = self._start
        if self.form == "plain":
            first = start.weights
        else:
            first = np.zeros_like(start.weights) if start.delta is None else start.delta.weights
        return np.vstack([start.bias, first]).astype(np.float64)

    def _set_masters(self, masters: Doubles) -> None:
        """Set the masters (N + 1, K), and the served weights to their rounded values."""
        self._masters = align_to_cache_line(pack(masters[1:], masters[0], 64 // self.dtype.itemsize))
        served = masters.astype(self.dtype)
        weights = served[1:] if self.form != "delta" else np.vstack([self._start.weights, served[1:]])
        self._panels = align_to_cache_line(pack(weights, served[0]))

    def _reset_sums(self) -> None:
        N, K, D = self.n_features, self.n_logits, self.n_features + 1
        unused = np.zeros((1, 1, 64 // self.dtype.itemsize), self.dtype)
        self._squares, self._curvature = unused, np.zeros((1, 1))
        if self.rule.name in RULES_WITH_SQUARES:
            sums = np.full((N + 1, K), self.rule.start, self.dtype)
            if self._first_squares is not None:
                sums[:] = self._first_squares[:, None]
            self._squares = align_to_cache_line(pack(sums[1:], sums[0]))
        if self.rule.name == "newton":
            self._curvature = align_to_cache_line(np.zeros((K, stored_size(D))))
            curvature_start(self._curvature, D, self.rule.start)

    def _set_stages(self) -> tuple[float, NDArray[np.bool_]]:
        """Set the stages' numbers; return the own stage's clip, and which features the learned stage can use."""
        N, start, learned = self.n_features, self._start, self._learned_stage
        usable = np.ones(N, np.bool_)
        self._fixed[0, :N], self._fixed[1, :N], clip = round_stage(start.stage or identity_stage(N), self.dtype)
        if learned is not None:
            usable = representable_features(learned.mean, learned.scale, self.dtype)
            scale = np.where(usable, learned.scale, 1.0)
            mean, inverse, _ = round_stage(Stage(np.where(usable, learned.mean, 0.0), scale), self.dtype)
            self._fixed[2, :N], self._fixed[3, :N] = mean, np.where(usable, inverse, self.dtype.type(0))
        return clip, usable
