"""Mixtures of experts that learn from rows; mixture_model.py describes the experts, kernels/mixture_fold.py the steps.

The learner starts from a linear model. If that is trained, its logits are added to those of the experts, and until the
first row it is served as it is; so are the weights of 0 of a new model. A mixture that was exported goes on with its
experts and with the stage that it has.

The stored tensors have no panels, because the width of a panel depends on the processor:

    masters.<expert> (D, K)             float64; of `features` (D, 2 K) with a trained start
    curvature.base (K, S)               float64, see kernels/newton.py; wide rows have squares.base (N + 1, K) instead
    curvature.<expert> (1, S), pending.<expert> (8, D16)    float32, of `features` and `linear`, see shared_curvature.py
    delayed.<expert> (11,), own.<expert> (K,)               float64, of the same
    whole (2,), weights (2 H + 2,), weights_curvature (H, H)    float64
    frequencies (2, C)                  float64, counts and frequencies of the classes, see kernels/mixture.py
    statistics (5, N), stage (5, N)     float64 and the model's dtype, see kernels/mixture_inputs.py
    progress (8,), recent (2, R)        as of every learner
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.softmax.added_classes import extend_layer
from service.softmax.arrays import Doubles, Floats
from service.softmax.cache_lines import align_to_cache_line
from service.softmax.fold_arguments import FoldArguments
from service.softmax.input_stage import Stage, round_stage
from service.softmax.kernels import fold, mixture_fold
from service.softmax.kernels.matmul import pack, unpack
from service.softmax.kernels.mixture import mixture_start
from service.softmax.kernels.mixture_inputs import STAGE_ROWS
from service.softmax.kernels.newton import curvature_start, stored_size
from service.softmax.kernels.random_features import pack_features
from service.softmax.kernels.shared_curvature import DELAY, DELAYED, LANES, shared_start
from service.softmax.learner import Learner
from service.softmax.mixture_constants import kernel_constants, mixture_constants
from service.softmax.mixture_model import MixtureArrays, pad_stage
from service.softmax.parameters import LinearParameters, MixtureParameters
from service.softmax.rule import Rule

EXPERTS: Final = ("features", "base", "linear")
# The experts with one curvature for all classes.
SHARED: Final = ("features", "linear")
Start = LinearParameters | MixtureParameters
Tensors = dict[str, NDArray[np.floating[Any]]]


class SharedSums(NamedTuple):
    """The sums of an expert with one curvature, beside its weights; see the module docstring for the shapes."""

    curvature: Floats
    pending: Floats
    delayed: Doubles
    own: Doubles


class MixtureLearner(Learner[Start]):
    """A mixture of experts that learns.

    Args:
        start: The first parameters: a linear model, or a mixture.
        rule: The rule mixture.
        thresholds: (K,), as of every learner.
        learned_stage: The stage that standardizes rows, if the trained model knows one; else it follows the rows.

    Raises:
        ValueError: `start` is no model, or the rule is another one.
    """

    def __init__(self, start: Start, rule: Rule, thresholds: Doubles, learned_stage: Stage | None = None) -> None:
        super().__init__(start, "mixture", rule, thresholds)
        self._numbers: Final = mixture_constants(rule)
        self._learned_stage: Final = learned_stage
        self._form = mixture_fold.RUNNING if learned_stage is None else mixture_fold.TRAINED
        if isinstance(start, MixtureParameters):
            self._form, experts = mixture_fold.FIXED, start.experts
        else:
            experts = self._first_experts(start)
        self._is_wide: Final = experts.is_wide
        self._n_heads: Final = experts.n_heads
        self._draw: Final = experts.draw
        self._drawn: Final = pack_features(experts.draw_features())
        self._weights = experts.weights.copy()
        self._n_experts: Final = self._weights.size // 2 - 1
        # The counts of an exported mixture are not known; its frequencies count as one row of each class.
        self._frequencies = np.stack([experts.frequencies * experts.frequencies.size, experts.frequencies])
        self._stage = pad_stage(experts.stage)
        self._statistics: Final = np.zeros((STAGE_ROWS, self._stage.shape[1]))
        if learned_stage is not None:
            self._stage[:2, : self.n_features] = round_stage(learned_stage, self.dtype)[:2]
        self._set_offset()
        self._set_masters([rows.astype(np.float64) for rows in experts[:3]])
        self._reset_sums()

    @property
    def has_learned(self) -> bool:
        """Whether a row was learned; until then the answer is that of the start alone."""
        return bool(self._weights[self._n_experts :].any())

    def continue_counts(self, before: Learner[Any]) -> None:
        """Count on from another learner."""
        self._counts.totals[:] = before._counts.totals  # noqa: SLF001  # of another class of the same base
        self._counts.recent[:], self._counts.window[:] = before._counts.recent, before.window  # noqa: SLF001
        self._counts.totals[fold.SEEN] = 0
        self.added_classes = list(before.added_classes)

    def parameters(self) -> Start:
        """Return copies of the current parameters: the start, until a row was learned."""
        if not self.has_learned:
            return self._start
        features, base, linear = (rows.astype(self.dtype) for rows in self._layers())
        stage = self._stage[:, : self.n_features].copy()
        experts = MixtureArrays(
            features, base, linear, stage, self._weights.copy(), self._frequencies[1].copy(), self._draw
        )
        return MixtureParameters(self._start.head, experts, self._offset)

    def tensors(self) -> Tensors:
        """Return copies of all changing arrays, for a checkpoint; `restore` restores them bit by bit."""
        N = self.n_features
        tensors = self._count_tensors()
        tensors |= {f"masters.{name}": rows for name, rows in zip(EXPERTS, self._layers(), strict=True) if len(rows)}
        for name, sums in zip(SHARED, self._shared, strict=True):
            if name == "features" or not self._is_wide:
                tensors |= {f"{field}.{name}": array.copy() for field, array in sums._asdict().items()}
        if self._is_wide:
            tensors["squares.base"] = unpack(self._squares, self.n_logits)
        else:
            tensors["curvature.base"] = self._curvature.copy()
        return tensors | {
            "whole": self._whole.copy(),
            "weights": self._weights.copy(),
            "weights_curvature": self._weights_curvature.copy(),
            "frequencies": self._frequencies.copy(),
            "statistics": self._statistics[:, :N].copy(),
            "stage": self._stage[:, :N].copy(),
        }

    def _fold_rows(
        self, X: Floats, arguments: FoldArguments, losses: Doubles, scores: Floats, *, learning: bool
    ) -> None:
        counts = self._counts
        offsets = np.empty((0, self.n_logits), self.dtype)
        if self._offset_model is not None:
            offsets = self._offset_model.logits(X)
        mixture_fold.mixture_fold_forward(
            X, *arguments, offsets, self._head, self._form, learning, kernel_constants(self.rule), tuple(self._drawn),
            self._stage, self._statistics, self._panels, self._masters, tuple(map(tuple, self._shared)), self._whole,
            self._curvature, self._squares, self._weights, self._weights_curvature, self._frequencies, counts.totals,
            counts.recent, counts.window, losses, scores,
        )  # fmt: skip

    def _first_experts(self, start: LinearParameters) -> MixtureArrays:
        """Return the experts before any step: weights of 0, two heads beside trained weights."""
        N, K, numbers = start.n_features, start.n_logits, self._numbers
        heads = 2 if start.weights.any() or (start.delta is not None and start.delta.weights.any()) else 1
        inputs = 1 + numbers.features + (0 if numbers.is_wide else N)
        count = heads + (1 if numbers.is_wide else 2)
        return MixtureArrays(
            np.zeros((inputs, heads * K), self.dtype),
            np.zeros((N + 1, K), self.dtype),
            np.zeros((0 if numbers.is_wide else N + 1, K), self.dtype),
            np.zeros((STAGE_ROWS, N), self.dtype),
            mixture_start(count),
            np.full(max(K, 2), 1 / max(K, 2)),
            np.array([numbers.features, numbers.seed], np.float64),
        )

    def _set_offset(self) -> None:
        """Set the model whose logits are added to those of the experts, or None if they are all 0."""
        start = self._start
        offset = start.offset if isinstance(start, MixtureParameters) else start
        self._offset = None if offset is None or not any(tensor.any() for tensor in offset.tensors()) else offset
        self._offset_model = None if self._offset is None else self._offset.build_model()

    def _layers(self) -> list[Doubles]:
        """Return copies of the masters, the bias first: of `features` all heads, of wide rows an empty `linear`."""
        K = self.n_logits
        widths = self._n_heads * K, K, K
        rows = [np.float64(1) * unpack(masters, width) for masters, width in zip(self._masters, widths, strict=True)]
        return rows if not self._is_wide else [*rows[:2], np.zeros((0, K))]

    def _set_masters(self, layers: list[Doubles]) -> None:
        """Set the masters (D, K) of each expert, and the served weights to their rounded values."""
        lanes = 64 // self.dtype.itemsize
        self._masters = tuple(align_to_cache_line(_pack(rows, lanes)) for rows in layers)
        self._panels = tuple(align_to_cache_line(_pack(rows.astype(self.dtype), lanes)) for rows in layers)

    def _reset_sums(self) -> None:
        N, K, numbers = self.n_features, self.n_logits, self._numbers
        D = N + 1
        linear = np.full(1 if self._is_wide else D, numbers.offset_start)
        features = np.full(self._masters[0].shape[1], self.rule.start)
        if not self._is_wide:
            features[:D] = numbers.offset_start
        self._shared = tuple(_first_sums(diagonal, K) for diagonal in (features, linear))
        self._whole = np.ones(2)
        self._weights_curvature = np.zeros((self._n_experts, self._n_experts))
        self._curvature, self._squares = np.zeros((1, 1)), np.zeros((1, 1, 64 // self.dtype.itemsize), self.dtype)
        if self._is_wide:
            start = np.full((D, K), numbers.base.start, self.dtype)
            self._squares = align_to_cache_line(_pack(start, 0))
        else:
            self._curvature = align_to_cache_line(np.zeros((K, stored_size(D))))
            curvature_start(self._curvature, D, numbers.base.start)

    def _extend_weights(self, tensors: Tensors, count: int) -> None:
        K = tensors["own.features"].size
        self._set_offset()  # the start has the bias of the new classes
        layers = []
        for name in EXPERTS:
            rows = tensors.get(f"masters.{name}", np.zeros((0, K)))
            heads = np.split(rows, self._n_heads, axis=1) if name == "features" else [rows]
            layers.append(np.hstack([extend_layer(one, count, lower=at > 0) for at, one in enumerate(heads)]))
        self._set_masters(layers)
        self._reset_sums()
        kept = {name: array for name, array in tensors.items() if not name.startswith(("masters.", "own."))}
        for name in SHARED:
            if f"own.{name}" in tensors:
                kept[f"own.{name}"] = np.concatenate([tensors[f"own.{name}"], np.ones(count)])
        kept["frequencies"] = _extend_frequencies(tensors["frequencies"][0], count)
        for name, axis in (("curvature.base", 0), ("squares.base", 1)):
            if name in tensors:
                sums = self.tensors()[name]
                sums[(slice(None),) * axis + (slice(K),)] = tensors[name]
                kept[name] = sums
        self._restore_sums(kept)

    def _restore_weights(self, tensors: Tensors) -> None:
        K = self.n_logits
        self._set_masters([tensors.get(f"masters.{name}", np.zeros((0, K))).astype(np.float64) for name in EXPERTS])
        self._restore_sums(tensors)

    def _restore_sums(self, tensors: Tensors) -> None:
        """Restore everything in tensors except the masters and the counts."""
        N = self.n_features
        for name, sums in zip(SHARED, self._shared, strict=True):
            for field, array in sums._asdict().items():
                if f"{field}.{name}" in tensors:
                    array[...] = tensors[f"{field}.{name}"]
        if self._is_wide:
            self._squares = align_to_cache_line(_pack(tensors["squares.base"], 0))
        else:
            self._curvature[...] = tensors["curvature.base"]
        self._whole[:], self._weights[:] = tensors["whole"], tensors["weights"]
        self._weights_curvature[...] = tensors["weights_curvature"]
        self._frequencies = tensors["frequencies"].copy()
        self._statistics[:, :N], self._stage[:, :N] = tensors["statistics"], tensors["stage"]

    def _new(self) -> "MixtureLearner":
        return MixtureLearner(self._start, self.rule, self.thresholds, self._learned_stage)


def _first_sums(diagonal: Doubles, n_logits: int) -> SharedSums:
    """Return the sums of an expert before any step; `diagonal` (D,) is that of its first curvature."""
    width = -(-diagonal.size // LANES) * LANES
    return SharedSums(
        align_to_cache_line(shared_start(diagonal.astype(np.float32))),
        np.zeros((DELAY, width), np.float32),
        np.concatenate([np.zeros(DELAY), [1.0], np.zeros(DELAYED - DELAY - 1)]),
        np.ones(n_logits),
    )


def _extend_frequencies(counts: Doubles, added: int) -> Doubles:
    """Return counts and frequencies (2, C + added), from the counts of C classes; an added class counts 1."""
    counts = np.concatenate([counts, np.ones(added)])
    return np.stack([counts, counts / np.add.accumulate(counts)[-1]])


def _pack(rows: Any, lanes: int) -> Any:  # noqa: ANN401  # arrays of one dtype, in and out
    """Return bias and weights (D, K) as panels; an empty layer as one without weights."""
    if not len(rows):
        return np.zeros((1, 1, lanes or 64 // rows.itemsize), rows.dtype)
    return pack(rows[1:], rows[0], lanes)
