"""The safe door to the fold: a model that learns, row by row, deterministically.

    z = stage(x) W + b + delta.stage(x) D      what is served, as model.py has it

Three forms say what learns, besides the bias (a network has the form layers, see network_steps.py):

    plain      W, on the features that it takes
    running    W, from 0, behind a stage whose mean and scale follow the rows that were learned from
    delta      D, from 0, behind a fixed stage; W stays as it is

A `LinearLearner` holds what `kernels/fold.py` works on: masters in float64, the served weights in the panels of
`kernels/matmul.py`, the rule's own sums, statistics and counts. Its stored tensors have no panels, so a checkpoint
reads the same on every processor. (Panels have other widths where registers are fewer.)
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.fold_arguments import Integers, taken
from service.softmax.input_stage import Delta, Doubles, Floats, Stage, representable, staging
from service.softmax.kernels import fold
from service.softmax.kernels.matmul import pack, unpack
from service.softmax.kernels.newton import curvature_start, stored_size
from service.softmax.linear_model import HEADS
from service.softmax.parameters import NEW_CLASS, Form, LinearParameters, Rule, progress_of, with_means

FORMS: Final[dict[str, int]] = {"plain": fold.PLAIN, "running": fold.RUNNING, "delta": fold.DELTA}
RULES: Final[dict[str, int]] = {"sgd": fold.SGD, "adagrad": fold.ADAGRAD, "ftrl": fold.FTRL, "newton": fold.NEWTON}
CACHE_LINE: Final = 64  # bytes
# Rows of the recent window.
RECENT: Final = 1000


class LinearLearner:
    """A model that learns.

    Args:
        start: What it begins as. The form delta starts at `start.delta`, or at 0 behind `learned`.
        form: What learns.
        rule: By which rule.
        thresholds: For each class the p that names it, (K,); only a multilabel head uses them.
        learned: The stage of the form delta where `start` has no delta. A feature whose numbers cannot be represented
            in the model's dtype is not learned from.

    Raises:
        ValueError: `start` is no model, or contradicts the form.
    """

    def __init__(
        self, start: LinearParameters, form: Form, rule: Rule, thresholds: Doubles, learned: Stage | None = None
    ) -> None:
        start.model()
        self.form: Final = form
        self.rule = rule
        self._start = start
        self.thresholds = np.array(thresholds, np.float64)
        self._learned = start.delta.stage if start.delta is not None else learned
        if (form == "delta") != (self._learned is not None):
            raise ValueError("the form delta, and no other, has a fixed stage to learn behind")
        if self.thresholds.shape != start.bias.shape:
            raise ValueError("there must be one threshold for each logit")
        self.n_features, self.dtype = start.weights.shape[0], start.weights.dtype
        wide = (self.n_features + 7) // 8 * 8
        self._fixed = np.zeros((4, wide), self.dtype)
        self._own_clip, self._usable = self._set_stages()
        self._statistics, self._progress = np.zeros((2, wide)), np.zeros(fold.PROGRESS)
        # The window tells of each recent answer how sure and how right it was, see fold.py.
        self._recent, self.window = np.zeros((2, RECENT)), np.zeros((2, RECENT))
        self.added: list[int] = []
        self._set_masters(self._first_masters())
        self._set_sums()

    @property
    def n_logits(self) -> int:
        """K, the number of logits."""
        return self._start.bias.size

    @property
    def progress(self) -> dict[str, float]:
        """What was counted so far."""
        return progress_of(self._progress, self._recent)

    def fold(
        self,
        X: Floats,
        labels: Integers | None = None,
        Y: Doubles | None = None,
        weights: Doubles | None = None,
        *,
        learning: bool = True,
        scores: Floats | None = None,
    ) -> Doubles:
        """Take rows in order: each is scored with the state before it, then learned from.

        Args:
            X: (B, N), C-contiguous, of the model's dtype.
            labels: (B,) int64 class indices; or None with Y.
            Y: (B, K) targets in [0, 1]: a distribution, or for multilabel one for each class. K = 1 for sigmoid.
            weights: (B,) importance of each row, or None where each is 1.
            learning: Whether to learn; else rows are only scored and counted.
            scores: (B, K) of the model's dtype, written where it is given: the logits of each row before its step.

        Returns:
            (B,) the loss of each row before its step; NaN for a row that was skipped (fold.py says which are).

        Raises:
            ValueError: Shapes contradict each other, or not exactly one of labels and Y is given.
            TypeError: X has another dtype or layout.
        """
        classes, targets, importance = taken(X, labels, Y, weights, self.n_features, self.n_logits, self.dtype)
        losses = np.empty(len(X))
        fold.fold_forward(
            X, classes, targets, importance, HEADS[self._start.head],
            RULES[self.rule.name], FORMS[self.form], learning, self._constants(), self.thresholds, self._panels,
            self._masters, self._squares, self._curvature, self._fixed, self._statistics, self._progress, self._recent,
            self.window, losses, np.empty((0, self.n_logits), self.dtype) if scores is None else scores,
        )  # fmt: skip
        return losses

    def set_rule(self, rule: Rule) -> None:
        """Go on by another rule, or other numbers. The sums start anew where the rule is another."""
        changed, self.rule = rule.name != self.rule.name, rule
        if changed:
            self._set_sums()

    def add_classes(self, count: int) -> None:
        """Add classes behind the others: each at the mean of the others' weights, and of their bias less ln 100.

        No other logit moves, so no other two classes change their order in any row.
        """
        K, tensors = self.n_logits, self.tensors()
        self._start = self._start.with_classes(count)
        self.added.append(count)
        self.thresholds = np.concatenate([self.thresholds, np.full(count, 0.5)])
        masters = with_means(tensors["masters"], count)
        masters[0, K:] += NEW_CLASS
        self._set_masters(masters)
        self._set_sums()
        for name, axis in (("squares", 1), ("curvature", 0)):
            if name in tensors:
                sums = self.tensors()[name]
                sums[(slice(None),) * axis + (slice(K),)] = tensors[name]
                self._set(name, sums)

    def served(self) -> LinearParameters:
        """What answers now: copies, in the model's dtype."""
        rows, N = unpack(self._panels, self.n_logits), self.n_features
        start, weights = self._start, rows[1 : N + 1].copy()
        stage, delta = start.stage, None
        if self.form == "running":
            stage, known = self._running_stage()
            weights[~known] = 0
        if self._learned is not None:
            learned = self._learned
            mean, scale = np.where(self._usable, learned.mean, 0.0), np.where(self._usable, learned.scale, 1.0)
            delta = Delta(rows[N + 1 :].copy(), Stage(mean, scale, self.rule.clip))
        return LinearParameters(start.head, weights, rows[0].copy(), stage, delta)

    def tensors(self) -> dict[str, NDArray[np.floating]]:
        """Everything that moves, as copies: what a checkpoint keeps. `restore` takes it back to the bit."""
        N, K = self.n_features, self.n_logits
        kept = {
            "masters": unpack(self._masters, K),
            "statistics": self._statistics[:, :N].copy(),
            "progress": self._progress.copy(),
            "recent": self._recent.copy(),
        }
        if self.rule.name in {"adagrad", "ftrl"}:
            kept["squares"] = unpack(self._squares, K)
        if self.rule.name == "newton":
            kept["curvature"] = self._curvature.copy()
        return kept

    def restore(self, tensors: dict[str, NDArray[np.floating]]) -> None:
        """Take back what `tensors` gave, after the same classes were added and with the same rule.

        Raises:
            ValueError: A tensor is missing, or has another shape or dtype.
        """
        own = self.tensors()
        if {name: (t.shape, t.dtype) for name, t in own.items()} != {
            name: (t.shape, t.dtype) for name, t in tensors.items()
        }:
            raise ValueError("these tensors are not those of this model")
        for name, tensor in tensors.items():
            self._set(name, np.array(tensor))

    def copy(self) -> "LinearLearner":
        """Another fold with the same state, which goes its own way."""
        other = LinearLearner(self._start, self.form, self.rule, self.thresholds, self._learned)
        other.added = list(self.added)
        other.restore(self.tensors())
        other.window[:] = self.window
        return other

    def _set(self, name: str, tensor: NDArray[np.floating]) -> None:
        """Put one tensor of `tensors` in its place."""
        if name == "masters":
            self._set_masters(tensor.astype(np.float64, copy=False))
        elif name == "squares":
            self._squares = aligned(pack(tensor[1:], tensor[0]))
        elif name == "curvature":
            self._curvature[:] = tensor
        elif name == "statistics":
            self._statistics[:, : self.n_features] = tensor
        elif name == "progress":
            self._progress[:] = tensor
        else:
            self._recent[:] = tensor

    def _constants(self) -> Doubles:
        """The rule's numbers as the kernel takes them."""
        rule, constants = self.rule, np.zeros(fold.CONSTANTS)
        constants[[fold.RATE, fold.OFFSET, fold.FLOOR, fold.PULL]] = rule.rate, rule.offset, rule.floor, rule.pull
        constants[[fold.FORGET, fold.START, fold.STEP_CLIP]] = rule.forget, rule.start, rule.step_clip
        constants[[fold.OWN_CLIP, fold.CLIP, fold.SURPRISE]] = self._own_clip, rule.clip, rule.surprise
        return constants

    def _running_stage(self) -> tuple[Stage, NDArray[np.bool_]]:
        """The running statistics as a stage, by the kernel's operations; and which features have a known scale."""
        mean, squares = self._statistics[:, : self.n_features]
        with np.errstate(all="ignore"):
            variance = squares / self._progress[fold.SEEN]
            scale = np.sqrt(variance)
            known = (variance > mean * mean * fold.VARIANCE_MIN) & representable(mean, scale, self.dtype)
            known &= 1 / scale < fold.INVERSE_MAX[self.dtype.itemsize]
        return Stage(mean.copy(), np.where(known, scale, 1.0), self.rule.clip), known

    def _first_masters(self) -> Doubles:
        """Bias, then what learns (N, K): the first masters."""
        start = self._start
        if self.form == "plain":
            first = start.weights
        else:
            first = np.zeros_like(start.weights) if start.delta is None else start.delta.weights
        if self.form == "running" and start.weights.any():
            raise ValueError("the form running starts from weights that are 0")
        return np.vstack([start.bias, first]).astype(np.float64)

    def _set_masters(self, masters: Doubles) -> None:
        """Take masters (N + 1, K), and serve them rounded."""
        self._masters = aligned(pack(masters[1:], masters[0], 64 // self.dtype.itemsize))
        served = masters.astype(self.dtype)
        learned = served[1:] if self.form != "delta" else np.vstack([self._start.weights, served[1:]])
        self._panels = aligned(pack(learned, served[0]))

    def _set_sums(self) -> None:
        """The rule's own sums, as they are before any step."""
        N, K, D = self.n_features, self.n_logits, self.n_features + 1
        none = np.zeros((1, 1, 64 // self.dtype.itemsize), self.dtype)
        self._squares, self._curvature = none, np.zeros((1, 1))
        if self.rule.name in {"adagrad", "ftrl"}:
            sums = np.full((N + 1, K), self.rule.start, self.dtype)
            self._squares = aligned(pack(sums[1:], sums[0]))
        if self.rule.name == "newton":
            self._curvature = aligned(np.zeros((K, stored_size(D))))
            curvature_start(self._curvature, D, self.rule.start)

    def _set_stages(self) -> tuple[float, NDArray[np.bool_]]:
        """Fill the stages' numbers; returns the own stage's clip, and which features the learned stage can use."""
        N, start = self.n_features, self._start
        own = start.stage or Stage(np.zeros(N), np.ones(N))
        usable = np.ones(N, np.bool_)
        self._fixed[0, :N], self._fixed[1, :N], clip = staging(own, self.dtype)
        if self._learned is not None:
            usable = representable(self._learned.mean, self._learned.scale, self.dtype)
            scale = np.where(usable, self._learned.scale, 1.0)
            mean, inverse, _ = staging(Stage(np.where(usable, self._learned.mean, 0.0), scale), self.dtype)
            self._fixed[2, :N], self._fixed[3, :N] = mean, np.where(usable, inverse, self.dtype.type(0))
        return clip, usable


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy that begins at a cache line: a vector that lies across two of them is read at half the speed."""
    room = np.empty(array.nbytes + CACHE_LINE, np.uint8)
    start = -room.ctypes.data % CACHE_LINE
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
