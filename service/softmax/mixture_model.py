"""Mixtures of experts: softmax or sigmoid regressions on several inputs of a row, and a learned mean of their answers.

    expert            input of a row                                        learned by
    features          the row and M random cosines of it                    Newton with one curvature for all classes
    features alone    the same, without the offset                          the same
    base              the row, standardized and cut at 1.25                 Newton per class, or FTRL for wide rows
    linear            the row, standardized and cut at 4; not if wide       Newton with one curvature

An offset is a trained model: its logits are added to those of the experts, except for `features alone`, which only a
model with an offset has. The logits of the mixture are the logarithms of its probabilities, so that heads, losses and
calibrations treat it as any other model. docs/mathematics.md derives the rule.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.softmax.added_classes import extend_layer
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.classifier import NO_LABELS, Classifier, Head, RowWork
from service.softmax.input_stage import Stage
from service.softmax.kernels.heads import NOT_FINITE
from service.softmax.kernels.matmul import pack
from service.softmax.kernels.mixture import ANSWER_MIN
from service.softmax.kernels.mixture_block import mixture_block_forward
from service.softmax.kernels.mixture_inputs import STAGE_ROWS
from service.softmax.kernels.mixture_predict import mixture_predict_forward
from service.softmax.kernels.random_features import RandomFeatures, draw_features, pack_features
from service.softmax.kernels.side_by_side import VECTORS
from service.softmax.kernels.single import SingleRowPlan

# Stages are padded to whole vectors of either dtype.
LANES: Final = 16
BLOCK_ROWS: Final = VECTORS * LANES


class MixtureArrays(NamedTuple):
    """The numbers of a mixture of N features, K logits, M random features and H experts; in the model's dtype but two.

    Attributes:
        features: (D, K) or beside trained weights (D, 2 K), D = 1 + N + M, or 1 + M if rows are wide; the bias first,
            then the weights. The second K columns are those of the expert without the offset.
        base: (N + 1, K), the bias first.
        linear: (N + 1, K), the bias first; (0, K) if rows are wide.
        stage: (5, N); see kernels/mixture_inputs.py.
        weights: (2 H + 2,) float64: the exponents of the experts, then the weights of the mixture, of the frequencies
            and of each expert.
        frequencies: (C,) float64, the frequencies of the classes.
        draw: (2,) float64: M and the seed of the random features.
    """

    features: Floats
    base: Floats
    linear: Floats
    stage: Floats
    weights: Doubles
    frequencies: Doubles
    draw: Doubles

    @property
    def n_features(self) -> int:
        """N."""
        return len(self.base) - 1

    @property
    def n_logits(self) -> int:
        """K."""
        return int(self.base.shape[1])

    @property
    def is_wide(self) -> bool:
        """Whether rows are wide."""
        return not len(self.linear)

    @property
    def n_heads(self) -> int:
        """The number of experts on the random features: 2 beside trained weights, else 1."""
        return int(self.features.shape[1]) // self.n_logits

    @property
    def guard(self) -> Doubles:
        """The weights (E,) of the E members of the average that answers; all are 0 before the first learned row."""
        return self.weights[self.weights.size // 2 - 1 :]

    def input_stage(self) -> Stage:
        """Return the stage that standardizes rows; features of unknown scale have the scale 1."""
        mean, inverse = self.stage[:2].astype(np.float64)
        known = inverse > 0
        return Stage(np.where(known, mean, 0.0), 1 / np.where(known, inverse, 1.0))

    def draw_features(self) -> RandomFeatures:
        """Return the random features."""
        (M, seed), dtype = map(int, self.draw), np.float32 if self.base.dtype == np.float32 else np.float64
        return draw_features(seed, self.n_features, M, narrow=not self.is_wide, dtype=dtype)

    def with_classes(self, count: int) -> "MixtureArrays":
        """Return the numbers with `count` more classes, beside an offset that has them.

        Each is at the mean of the others in every expert; only the expert without the offset has the lower bias too.
        """
        first, *alone = np.split(self.features, self.n_heads, axis=1)
        features = [extend_layer(first, count, lower=False), *(extend_layer(head, count) for head in alone)]
        linear = np.zeros((0, self.n_logits + count), self.base.dtype)
        if not self.is_wide:
            linear = extend_layer(self.linear, count, lower=False)
        base = extend_layer(self.base, count, lower=False)
        counts = np.concatenate([self.frequencies * self.frequencies.size, np.ones(count)])
        rest = {"base": base, "linear": linear, "frequencies": counts / counts.size}
        return self._replace(features=np.hstack(features), **rest)

    def arrays(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Return the arrays by name, in the order of their hash."""
        return self._asdict()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.floating[Any]]]) -> "MixtureArrays":
        """Return the numbers with these arrays."""
        # Copies: the kernels' types are those of writable arrays, and a snapshot's are not.
        weights, frequencies, draw = (arrays[name].astype(np.float64) for name in ("weights", "frequencies", "draw"))
        features, base, linear, stage = (arrays[name] for name in ("features", "base", "linear", "stage"))
        return cls(features, base, linear, stage, weights, frequencies, draw)

    def to_float64(self) -> "MixtureArrays":
        """Return the same numbers in float64."""
        return MixtureArrays.from_arrays({name: array.astype(np.float64) for name, array in self.arrays().items()})


class MixtureModel(Classifier):
    """A mixture of experts.

    Args:
        head: "softmax" or "sigmoid".
        experts: The numbers.
        offset: The trained model, or None.

    Raises:
        ValueError: The shapes or dtypes contradict each other, or a value is not finite.
    """

    def __init__(self, head: Head, experts: MixtureArrays, offset: Classifier | None = None) -> None:
        _check_mixture(head, experts, offset)
        super().__init__(head, experts.base.dtype, experts.n_features, experts.n_logits)
        self.experts: Final = experts
        self.offset: Final = offset
        self._drawn: Final = pack_features(experts.draw_features())
        self._stage: Final = pad_stage(experts.stage)
        self._panels: Final = tuple(_pack(rows) for rows in (experts.features, experts.base, experts.linear))

    @property
    def is_linear(self) -> bool:
        """Return False: the logits of a mixture are no sums over features."""
        return False

    @property
    def row_work(self) -> RowWork:
        """The work of all experts, of their features, and of the mixture.

        A sparse feature takes as long as a dense one, because its inputs are gathered.
        """
        experts, (N, M) = self.experts, (self.n_features, int(self.experts.draw[0]))
        layers = sum(array.size for array in (experts.features, experts.base, experts.linear))
        answers = experts.weights.size * self.n_classes
        offset = RowWork(0, 0) if self.offset is None else self.offset.row_work
        logs = 0 if experts.is_wide else N
        return RowWork(N * M + layers + offset.products, M + logs + answers + offset.functions)

    def logits(self, X: Floats) -> Floats:
        """Return Z (B, K) of X (B, N), the logarithms of the probabilities; NaN in rows that are not finite."""
        self.check_rows(X)
        Z = np.empty((len(X), self.n_logits), self.dtype)
        self._forward(X, Z, np.empty((0, self.n_classes), self.dtype), NO_LABELS)
        return Z

    def single_row_plan(self) -> SingleRowPlan | None:
        """Return new buffers to predict one row at a time in; None if the offset has too many logits for them."""
        N, lanes = self.n_features, self._panels[0].shape[2]
        panels, stagings = np.empty((0, N + 1, lanes), self.dtype), np.empty((0, 2 * N + 1), self.dtype)
        if self.offset is not None:
            plan = self.offset.single_row_plan()
            if plan is None:
                return None
            panels, stagings = plan.panels, plan.stagings
        return SingleRowPlan(panels, stagings, self._code, self.n_logits, self.n_classes, experts=self._numbers())

    def member_probabilities(self, X: Floats) -> Floats:
        """Return P (B, E, C), what each member of the average answers, in the order of their weights.

        Each answer is that of this mixture if the member had the whole weight. It is not finite where the logits of the
        mixture are not.
        """
        E, offsets, no_Z = self.experts.guard.size, self._offsets(X), np.empty((0, self.n_logits), self.dtype)
        answers = np.empty((E, len(X), self.n_classes), self.dtype)
        for member, P in enumerate(answers):
            weights = self.experts.weights.copy()
            weights[-E:] = 0.0
            # The kernel takes a first weight of 0 for a mixture that has learned nothing.
            weights[-E], weights[member - E] = ANSWER_MIN, 1.0
            numbers = (*self._numbers()[:-2], weights, self.experts.frequencies)
            mixture_predict_forward(X, offsets, *numbers, self._code, no_Z, P, NO_LABELS)
        return np.ascontiguousarray(answers.swapaxes(0, 1))

    def _offsets(self, X: Floats) -> Floats:
        """Return the offset's logits (B, K), or (0, K) without an offset."""
        return np.empty((0, self.n_logits), self.dtype) if self.offset is None else self.offset.logits(X)

    def _numbers(self) -> tuple[NDArray[Any], ...]:
        return (*self._drawn, *self._panels, self._stage, self.experts.weights, self.experts.frequencies)

    def _forward(self, X: Floats, Z: Floats, P: Floats, labels: Integers) -> int:
        """Write logits, probabilities and labels, unless they are empty; return what mixture_predict_forward does.

        Whole blocks of rows go through the kernel of blocks. It takes half the time for a row, but always computes the
        whole block.
        """
        offsets, numbers = self._offsets(X), (*self._numbers(), self._code)
        rest = len(X) % BLOCK_ROWS
        count = len(X) - (rest if rest < BLOCK_ROWS // 2 else 0)
        if not count or self.dtype != np.float32 or not self.experts.guard.any():
            return int(mixture_predict_forward(X, offsets, *numbers, Z, P, labels))
        first: int = mixture_block_forward(X[:count], offsets[:count], *numbers, Z[:count], P[:count], labels[:count])
        if count < len(X):
            label = mixture_predict_forward(X[count:], offsets[count:], *numbers, Z[count:], P[count:], labels[count:])
            first = NOT_FINITE if label == NOT_FINITE else first
        return first

    def _predict(self, X: Floats, labels: Integers) -> tuple[Floats, int]:
        self.check_rows(X)
        P = np.empty((len(X), self.n_classes), self.dtype)
        label = self._forward(X, np.empty((0, self.n_logits), self.dtype), P, labels)
        if label == NOT_FINITE:
            return P, self._predict_overflowing(X, P, labels)
        return P, label

    @cached_property
    def float64_model(self) -> "MixtureModel":
        """The same model in float64, for rows that overflow float32."""
        offset = None if self.offset is None else self.offset.float64_model
        return MixtureModel(self.head, self.experts.to_float64(), offset)


def pad_stage(stage: Floats) -> Floats:
    """Return a stage (5, N) with zeros up to whole vectors, as kernels take it."""
    N = stage.shape[1]
    padded = np.zeros((STAGE_ROWS, -(-N // LANES) * LANES), stage.dtype)
    padded[:, :N] = stage
    return padded


def _pack(rows: Floats) -> Floats:
    """Return bias and weights (D, K), the bias first, as panels; an empty layer as no panels."""
    return pack(rows[1:], rows[0]) if len(rows) else np.zeros((1, 1, 64 // rows.itemsize), rows.dtype)


def _check_mixture(head: str, experts: MixtureArrays, offset: Classifier | None) -> None:
    """Raise ValueError unless these form a mixture."""
    if head not in {"softmax", "sigmoid"}:
        raise ValueError("a mixture of experts has a softmax or a sigmoid head")
    N, K, dtype = experts.n_features, experts.n_logits, experts.base.dtype
    M, seed, heads = *experts.draw, experts.n_heads
    if dtype not in (np.float32, np.float64) or N < 1 or K < 1 or (head == "sigmoid" and K != 1):
        raise ValueError("the experts must be of float32 or float64, with as many logits as the head has")
    if heads not in {1, 2} or (heads == 2 and offset is None):  # noqa: PLR2004
        raise ValueError("only a mixture with an offset has a second expert on random features")
    if not (M >= 1 and seed >= 0 and int(M) == M and seed == int(seed)):
        raise ValueError("the number of random features and their seed must be whole numbers")
    inputs = 1 + int(M) + (0 if experts.is_wide else N)
    shapes = ((inputs, heads * K), (N + 1, K), (0 if experts.is_wide else N + 1, K), (STAGE_ROWS, N))
    if tuple(array.shape for array in experts[:4]) != shapes or {array.dtype for array in experts[:4]} != {dtype}:
        raise ValueError("the arrays of a mixture contradict each other")
    count = heads + 1 + (not experts.is_wide)
    own = (experts.weights.shape, experts.frequencies.shape)
    if own != ((2 * count + 2,), (max(K, 2),)) or not all(np.isfinite(array).all() for array in experts):
        raise ValueError("the arrays of a mixture contradict each other, or hold a number that is not finite")
    if offset is not None and (offset.dtype, offset.n_features, offset.n_logits) != (dtype, N, K):
        raise ValueError("the offset of a mixture must have its features, logits and dtype")
