"""Networks that learn from rows, in every layer.

All layers learn from their first weights (the form `layers`), by sgd, adagrad or ftrl. The tensors are those of each
layer, numbered from 0, the first hidden layer, to the head's:

    masters.l (N_l + 1, K_l) float64     bias, then weights
    squares.l (N_l + 1, K_l)             in the model's dtype; only adagrad and ftrl have them
    progress (8,), recent (2, R)         float64, as in kernels/fold.py
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.added_classes import extend_layer
from service.softmax.arrays import Doubles, Floats
from service.softmax.cache_lines import align_to_cache_line
from service.softmax.fold_arguments import FoldArguments
from service.softmax.input_stage import identity_stage, round_stage
from service.softmax.kernels.matmul import unpack
from service.softmax.kernels.network import LayerArrays, layer_view, make_plan, pack_layers
from service.softmax.kernels.network_fold import network_fold_forward
from service.softmax.learner import RULES, Learner, rule_constants
from service.softmax.parameters import NetworkParameters
from service.softmax.rule import Rule

NETWORK_RULES: Final = ("sgd", "adagrad", "ftrl")


class NetworkLearner(Learner[NetworkParameters]):
    """A network that learns.

    Args:
        start: The first parameters.
        rule: The learning rule: sgd, adagrad or ftrl.
        thresholds: (K,), the p from which a class is predicted; only a multilabel head uses them.

    Raises:
        ValueError: `start` is no network, or the rule is not one for networks.
    """

    def __init__(self, start: NetworkParameters, rule: Rule, thresholds: Doubles) -> None:
        super().__init__(start, "layers", rule, thresholds)
        _check_rule(rule)
        mean, inverse, self._own_clip = round_stage(start.stage or identity_stage(self.n_features), self.dtype)
        self._fixed: Final = np.stack([mean, inverse])
        self._constants = rule_constants(rule, self._own_clip)
        self._set_masters([np.vstack([b, W]).astype(np.float64) for W, b in start.affine_layers()])
        self._reset_sums()

    def set_rule(self, rule: Rule) -> None:
        """Continue with another rule or other constants. A rule of another name starts with new sums.

        Raises:
            ValueError: The rule is not one for networks.
        """
        _check_rule(rule)
        # Computed once, because it takes as long as a step of a small network.
        self._constants = rule_constants(rule, self._own_clip)
        super().set_rule(rule)

    def parameters(self) -> NetworkParameters:
        """Return copies of the current parameters, in the model's dtype."""
        *hidden, head = self._unpack_layers(self._panels)
        layers = tuple(
            LayerArrays(rows[1:].copy(), rows[0].copy(), layer.activation)
            for rows, layer in zip(hidden, self._start.hidden, strict=True)
        )
        return NetworkParameters(self._start.head, layers, head[1:].copy(), head[0].copy(), self._start.stage)

    def tensors(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Return copies of all changing arrays, for a checkpoint; `restore` restores them bit by bit."""
        tensors = self._count_tensors()
        tensors |= {f"masters.{number}": rows for number, rows in enumerate(self._unpack_layers(self._masters))}
        if self.rule.name != "sgd":
            tensors |= {f"squares.{number}": rows for number, rows in enumerate(self._unpack_layers(self._squares))}
        return tensors

    def _fold_rows(
        self, X: Floats, arguments: FoldArguments, losses: Doubles, scores: Floats, *, learning: bool
    ) -> None:
        counts = self._counts
        network_fold_forward(
            X, *arguments, self._head, RULES[self.rule.name], learning, self._constants, self.thresholds, self._plan,
            self._panels, self._masters, self._squares, self._fixed, counts.totals, counts.recent, counts.window,
            losses, scores,
        )  # fmt: skip

    def _extend_weights(self, tensors: dict[str, NDArray[np.floating[Any]]], count: int) -> None:
        last = len(self._start.hidden)
        masters = self._layer_tensors("masters", tensors)
        K = masters[last].shape[1]
        masters[last] = extend_layer(masters[last], count)
        self._set_masters(masters)
        sums = self._first_squares()
        if "squares.0" in tensors:
            before = self._layer_tensors("squares", tensors)
            sums[:last], sums[last][:, :K] = before[:last], before[last]
        self._set_squares(sums)

    def _restore_weights(self, tensors: dict[str, NDArray[np.floating[Any]]]) -> None:
        self._set_masters(self._layer_tensors("masters", tensors))
        if self.rule.name != "sgd":
            self._set_squares(self._layer_tensors("squares", tensors))

    def _new(self) -> "NetworkLearner":
        return NetworkLearner(self._start, self.rule, self.thresholds)

    def _layer_tensors(
        self, kind: str, tensors: dict[str, NDArray[np.floating[Any]]]
    ) -> list[NDArray[np.floating[Any]]]:
        """Return copies of the tensors of one kind, layer by layer."""
        return [np.array(tensors[f"{kind}.{number}"]) for number in range(len(self._start.hidden) + 1)]

    def _unpack_layers(self, flat: Floats) -> list[Floats]:
        """Return bias, then weights (N_l + 1, K_l), of every layer in packed numbers."""
        outputs = self._plan[:, 2].tolist()
        return [unpack(layer_view(flat, self._plan, number), K) for number, K in enumerate(outputs)]

    def _set_masters(self, masters: list[NDArray[np.floating[Any]]]) -> None:
        """Set the masters (N_l + 1, K_l) of every layer, and the served weights to their rounded values."""
        self._plan = make_plan(self._start.hidden, self.n_features, self.n_logits, self.dtype)
        self._masters = align_to_cache_line(pack_layers(masters, 64 // self.dtype.itemsize))
        self._panels = align_to_cache_line(pack_layers([rows.astype(self.dtype) for rows in masters]))

    def _reset_sums(self) -> None:
        self._set_squares(self._first_squares())

    def _set_squares(self, squares: list[NDArray[np.floating[Any]]]) -> None:
        has_squares = self.rule.name != "sgd"
        self._squares = align_to_cache_line(pack_layers(squares)) if has_squares else np.zeros(1, self.dtype)

    def _first_squares(self) -> list[NDArray[np.floating[Any]]]:
        """Return the rule's sums of every layer before any step."""
        shapes = [(W.shape[0] + 1, W.shape[1]) for W, _ in self._start.affine_layers()]
        return [np.full(shape, self.rule.start, self.dtype) for shape in shapes]


def _check_rule(rule: Rule) -> None:
    if rule.name not in NETWORK_RULES:
        raise ValueError("a network learns by sgd, adagrad or ftrl")
