"""The safe door to the fold of networks: a network that learns in every layer, row by row, deterministically.

A `NetworkLearner` has the methods of `LinearLearner` (linear_learner.py), so one caller drives both. All layers learn
from the weights that they start with (the form `layers`), by sgd, adagrad or ftrl. Its tensors are those of
each layer, numbered from 0, the first hidden layer, to the head's:

    masters.l (N_l + 1, K_l) float64     bias, then weights
    squares.l (N_l + 1, K_l)             in the model's dtype; adagrad and ftrl have them
    progress (8,), recent (2, R)         float64, as in fold.py
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.calibration import Calibrated, Calibration, calibration_in, numbers_of
from service.softmax.classifier import HEADS, Classifier, Head
from service.softmax.fold_arguments import Integers, taken
from service.softmax.input_stage import Doubles, Floats, Stage, staging
from service.softmax.kernels import fold
from service.softmax.kernels.matmul import unpack
from service.softmax.kernels.network import Activation, LayerArrays, layer_of, pack_all, plan_of
from service.softmax.kernels.network_fold import network_fold_forward
from service.softmax.linear_learner import RECENT, RULES, aligned
from service.softmax.network_model import NetworkModel
from service.softmax.parameters import NEW_CLASS, Form, Rule, progress_of, with_means

NETWORK_RULES: Final = ("sgd", "adagrad", "ftrl")


@dataclass(frozen=True, eq=False)
class NetworkParameters:
    """What a network is made of at one moment: own arrays, in the model's dtype. The twin of `Served`."""

    head: Head
    hidden: tuple[LayerArrays, ...]
    weights: Floats
    bias: Floats
    stage: Stage | None = None
    calibration: Calibration | None = None

    def model(self) -> Classifier:
        """The network that answers."""
        network = NetworkModel(self.head, self.hidden, self.weights, self.bias, self.stage)
        return network if self.calibration is None else Calibrated(network, self.calibration)

    def affine(self) -> list[tuple[Floats, Floats]]:
        """Weights and bias of each layer, the head's last."""
        return [*((layer.weights, layer.bias) for layer in self.hidden), (self.weights, self.bias)]

    def tensors(self) -> list[Floats]:
        """The served tensors in the order of their hash: weights, then bias, layer by layer, then the calibration."""
        return [*(tensor for pair in self.affine() for tensor in pair), *numbers_of(self.calibration)]

    def with_classes(self, count: int) -> "NetworkParameters":
        """The same with classes behind the others, as `Served.with_classes` has it: in the head's layer."""
        bias = with_means(self.bias[None].astype(np.float64), count)[0]
        bias[self.bias.size :] += NEW_CLASS
        return replace(self, weights=with_means(self.weights, count), bias=bias.astype(self.bias.dtype))

    def arrays(self) -> dict[str, NDArray[np.floating[Any]]]:
        """All arrays by name; with the head, the activations and `clips` they make the same again."""
        found: dict[str, NDArray[np.floating[Any]]] = {}
        for number, (weights, bias) in enumerate(self.affine()):
            found |= {f"layers.{number}.weights": weights, f"layers.{number}.bias": bias}
        if self.stage is not None:
            found |= {"stage.mean": self.stage.mean, "stage.scale": self.stage.scale}
        if self.calibration is not None:
            found["calibration"] = self.calibration.array()
        return found

    def clips(self) -> dict[str, float | None]:
        """The clip of the stage, if there is one, by the name of its arrays."""
        return {} if self.stage is None else {"stage": self.stage.clip}

    @classmethod
    def of(
        cls,
        head: Head,
        activations: tuple[Activation, ...],
        arrays: Mapping[str, NDArray[np.floating[Any]]],
        clips: Mapping[str, float | None],
    ) -> "NetworkParameters":
        """What gave these arrays and clips, with these activations of its hidden layers."""
        affine = [(arrays[f"layers.{n}.weights"], arrays[f"layers.{n}.bias"]) for n in range(len(activations) + 1)]
        hidden = tuple(
            LayerArrays(*pair, activation) for pair, activation in zip(affine[:-1], activations, strict=True)
        )
        stage = None
        if "stage" in clips:
            mean, scale = (arrays[f"stage.{name}"].astype(np.float64, copy=False) for name in ("mean", "scale"))
            stage = Stage(mean, scale, clips["stage"])
        return cls(head, hidden, *affine[-1], stage, calibration_in(head, arrays))


class NetworkLearner:
    """A network that learns.

    Args:
        start: What it begins as.
        rule: By which rule, sgd, adagrad or ftrl.
        thresholds: For each class the p that names it, (K,); only a multilabel head uses them.

    Raises:
        ValueError: `start` is no network, or the rule is not one for networks.
    """

    def __init__(self, start: NetworkParameters, rule: Rule, thresholds: Doubles) -> None:
        start.model()
        _check_rule(rule)
        self.form: Final[Form] = "layers"
        self.rule = rule
        self._start = start
        self.thresholds = np.array(thresholds, np.float64)
        if self.thresholds.shape != start.bias.shape:
            raise ValueError("there must be one threshold for each logit")
        self.n_features, self.dtype = start.hidden[0].weights.shape[0], start.weights.dtype
        own = start.stage or Stage(np.zeros(self.n_features), np.ones(self.n_features))
        mean, inverse, self._own_clip = staging(own, self.dtype)
        self._fixed = np.stack([mean, inverse])
        self._constants = self._numbers()
        self._progress, self._recent = np.zeros(fold.PROGRESS), np.zeros((2, RECENT))
        self.window = np.zeros((2, RECENT))
        self.added: list[int] = []
        self._set_masters([np.vstack([b, W]).astype(np.float64) for W, b in start.affine()])
        self._set_squares(self._first_squares())

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
        """Take rows in order: each is scored with the state before it, then learned from; see `Steps.fold`."""
        classes, targets, importance = taken(X, labels, Y, weights, self.n_features, self.n_logits, self.dtype)
        losses = np.empty(len(X))
        network_fold_forward(
            X, classes, targets, importance, HEADS[self._start.head],
            RULES[self.rule.name], learning, self._constants, self.thresholds, self._plan, self._panels,
            self._masters, self._squares, self._fixed, self._progress, self._recent,
            self.window, losses, np.empty((0, self.n_logits), self.dtype) if scores is None else scores,
        )  # fmt: skip
        return losses

    def set_rule(self, rule: Rule) -> None:
        """Go on by another rule, or other numbers. The sums start anew where the rule is another."""
        _check_rule(rule)
        changed, self.rule = rule.name != self.rule.name, rule
        self._constants = self._numbers()
        if changed:
            self._set_squares(self._first_squares())

    def add_classes(self, count: int) -> None:
        """Add classes behind the others, in the head's layer, as `Steps.add_classes` does."""
        K, tensors, last = self.n_logits, self.tensors(), len(self._start.hidden)
        self._start = self._start.with_classes(count)
        self.added.append(count)
        self.thresholds = np.concatenate([self.thresholds, np.full(count, 0.5)])
        masters = self._layers("masters", tensors)
        masters[last] = with_means(masters[last], count)
        masters[last][0, K:] += NEW_CLASS
        self._set_masters(masters)
        sums = self._first_squares()
        if "squares.0" in tensors:
            kept = self._layers("squares", tensors)
            sums[:last], sums[last][:, :K] = kept[:last], kept[last]
        self._set_squares(sums)

    def served(self) -> NetworkParameters:
        """What answers now: copies, in the model's dtype."""
        *hidden, head = self._unpacked(self._panels)
        layers = tuple(
            LayerArrays(rows[1:].copy(), rows[0].copy(), layer.activation)
            for rows, layer in zip(hidden, self._start.hidden, strict=True)
        )
        return NetworkParameters(self._start.head, layers, head[1:].copy(), head[0].copy(), self._start.stage)

    def tensors(self) -> dict[str, NDArray[np.floating]]:
        """Everything that moves, as copies: what a checkpoint keeps. `restore` takes it back to the bit."""
        kept: dict[str, NDArray[np.floating]] = {"progress": self._progress.copy(), "recent": self._recent.copy()}
        kept |= {f"masters.{number}": rows for number, rows in enumerate(self._unpacked(self._masters))}
        if self.rule.name != "sgd":
            kept |= {f"squares.{number}": rows for number, rows in enumerate(self._unpacked(self._squares))}
        return kept

    def restore(self, tensors: dict[str, NDArray[np.floating]]) -> None:
        """Take back what `tensors` gave, after the same classes were added and with the same rule.

        Raises:
            ValueError: A tensor is missing, or has another shape or dtype.
        """
        own = {name: (t.shape, t.dtype) for name, t in self.tensors().items()}
        if own != {name: (t.shape, t.dtype) for name, t in tensors.items()}:
            raise ValueError("these tensors are not those of this network")
        self._set_masters(self._layers("masters", tensors))
        if self.rule.name != "sgd":
            self._set_squares(self._layers("squares", tensors))
        self._progress[:], self._recent[:] = tensors["progress"], tensors["recent"]

    def copy(self) -> "NetworkLearner":
        """Another fold with the same state, which goes its own way."""
        other = NetworkLearner(self._start, self.rule, self.thresholds)
        other.added = list(self.added)
        other.restore(self.tensors())
        other.window[:] = self.window
        return other

    def _layers(self, kind: str, tensors: dict[str, NDArray[np.floating]]) -> list[NDArray[np.floating]]:
        """The tensors of one kind, layer by layer."""
        return [np.array(tensors[f"{kind}.{number}"]) for number in range(len(self._start.hidden) + 1)]

    def _unpacked(self, flat: NDArray[np.floating]) -> list[NDArray[np.floating]]:
        """Bias, then weights (N_l + 1, K_l), of every layer of packed numbers."""
        outputs = self._plan[:, 2].tolist()
        return [unpack(layer_of(flat, self._plan, number), K) for number, K in enumerate(outputs)]

    def _numbers(self) -> Doubles:
        """The rule's numbers as the kernel takes them; making them costs as much as a step of a small network."""
        rule, constants = self.rule, np.zeros(fold.CONSTANTS)
        constants[[fold.RATE, fold.OFFSET, fold.FORGET, fold.START]] = rule.rate, rule.offset, rule.forget, rule.start
        constants[[fold.STEP_CLIP, fold.OWN_CLIP]] = rule.step_clip, self._own_clip
        return constants

    def _set_masters(self, masters: list[NDArray[np.floating]]) -> None:
        """Take masters (N_l + 1, K_l) of every layer, and serve them rounded."""
        self._plan = plan_of(self._start.hidden, self.n_features, self.n_logits, self.dtype)
        self._masters = aligned(pack_all(masters, 64 // self.dtype.itemsize))
        self._panels = aligned(pack_all([rows.astype(self.dtype) for rows in masters]))

    def _set_squares(self, squares: list[NDArray[np.floating]]) -> None:
        self._squares = aligned(pack_all(squares)) if self.rule.name != "sgd" else np.zeros(1, self.dtype)

    def _first_squares(self) -> list[NDArray[np.floating]]:
        """The rule's own sums, as they are before any step."""
        shapes = [(W.shape[0] + 1, W.shape[1]) for W, _ in self._start.affine()]
        return [np.full(shape, self.rule.start, self.dtype) for shape in shapes]


def _check_rule(rule: Rule) -> None:
    if rule.name not in NETWORK_RULES:
        raise ValueError("a network learns by sgd, adagrad or ftrl")
