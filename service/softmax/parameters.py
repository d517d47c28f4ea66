"""Learning rules with their constants, and the parameters that a learner publishes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Floats
from service.softmax.calibration import CalibratedModel, Calibration, calibration_from_tensors, calibration_tensors
from service.softmax.classifier import Classifier, Head
from service.softmax.input_stage import Delta, Stage
from service.softmax.kernels.network import Activation, LayerArrays
from service.softmax.linear_model import LinearModel
from service.softmax.network_model import NetworkModel

Form = Literal["plain", "running", "delta", "layers"]
RuleName = Literal["sgd", "adagrad", "ftrl", "newton"]
Arrays = dict[str, NDArray[np.floating[Any]]]

# A new class starts at the mean logit of the others minus ln 100. By the inequality of the arithmetic and geometric
# means its softmax probability is then at most 1 / (100 K) in every row.
NEW_CLASS: Final = -4.605170185988092


@dataclass(frozen=True)
class Rule:
    """A learning rule with all its constants; docs/models.md describes each.

    `start` is the first value of the rule's sums: G_0 for adagrad and ftrl, the diagonal of P for newton. `offset` is
    adagrad's epsilon and ftrl's beta. `clip` limits learned features, `step_clip` a step's effect on its own logits.
    `regret` limits the losses in excess of a uniform guess's, in losses of such a guess; 0 sets no limit.
    """

    name: RuleName
    rate: float
    offset: float = 0.0
    floor: float = 0.0
    pull: float = 0.0
    forget: float = 0.0
    surprise: float = 0.0
    start: float = 0.0
    step_clip: float = np.inf
    clip: float = np.inf
    regret: float = 0.0


@dataclass(frozen=True, eq=False)
class LinearParameters:
    """The parameters of a linear model: own arrays, in the model's dtype."""

    head: Head
    weights: Floats
    bias: Floats
    stage: Stage | None = None
    delta: Delta | None = None
    calibration: Calibration | None = None

    def build_model(self) -> Classifier:
        """Return the model with these parameters.

        Raises:
            ValueError: They form no model.
        """
        return _calibrate(LinearModel(self.head, self.weights, self.bias, self.stage, self.delta), self.calibration)

    def tensors(self) -> list[Floats]:
        """Return all tensors in the order of their hash: weights, bias, the delta's weights, the calibration."""
        delta = [] if self.delta is None else [self.delta.weights]
        return [self.weights, self.bias, *delta, *calibration_tensors(self.calibration)]

    def effective_tensors(self) -> list[Floats]:
        """Return the tensors that answers depend on: all but a delta of zeros."""
        has_effect = self.delta is not None and self.delta.weights.any()
        return (self if has_effect else replace(self, delta=None)).tensors()

    def with_classes(self, count: int) -> "LinearParameters":
        """Return parameters with `count` more classes, at the mean of the others; their biases lower by ln 100."""
        delta = None
        if self.delta is not None:
            delta = replace(self.delta, weights=append_mean_columns(self.delta.weights, count))
        weights, bias = append_mean_columns(self.weights, count), _extend_bias(self.bias, count)
        return replace(self, weights=weights, bias=bias, delta=delta)

    def arrays(self) -> Arrays:
        """Return all arrays by name; `from_arrays` is the reverse, given the head and `clips`."""
        arrays: Arrays = {"weights": self.weights, "bias": self.bias, **_stage_arrays(self.stage)}
        if self.delta is not None:
            stage = self.delta.stage
            arrays |= {"delta.weights": self.delta.weights, "delta.mean": stage.mean, "delta.scale": stage.scale}
        return arrays | _calibration_arrays(self.calibration)

    def clips(self) -> dict[str, float | None]:
        """Return the clip of each stage, by the name of its arrays."""
        stages = {"stage": self.stage, "delta": None if self.delta is None else self.delta.stage}
        return {name: stage.clip for name, stage in stages.items() if stage is not None}

    @classmethod
    def from_arrays(
        cls, head: Head, arrays: Mapping[str, NDArray[np.floating[Any]]], clips: Mapping[str, float | None]
    ) -> "LinearParameters":
        """Return the parameters with these arrays and clips."""
        stages = {name: _stage_from_arrays(name, arrays, clip) for name, clip in clips.items()}
        delta = Delta(arrays["delta.weights"], stages["delta"]) if "delta" in stages else None
        calibration = calibration_from_tensors(head, arrays)
        return cls(head, arrays["weights"], arrays["bias"], stages.get("stage"), delta, calibration)


@dataclass(frozen=True, eq=False)
class NetworkParameters:
    """The parameters of a network: own arrays, in the model's dtype."""

    head: Head
    hidden: tuple[LayerArrays, ...]
    weights: Floats
    bias: Floats
    stage: Stage | None = None
    calibration: Calibration | None = None

    def build_model(self) -> Classifier:
        """Return the network with these parameters.

        Raises:
            ValueError: They form no network.
        """
        return _calibrate(NetworkModel(self.head, self.hidden, self.weights, self.bias, self.stage), self.calibration)

    def affine_layers(self) -> list[tuple[Floats, Floats]]:
        """Return weights and bias of each layer, the head's last."""
        return [*((layer.weights, layer.bias) for layer in self.hidden), (self.weights, self.bias)]

    def tensors(self) -> list[Floats]:
        """Return the tensors in the order of their hash: weights, then bias of each layer, then the calibration."""
        layers = (tensor for pair in self.affine_layers() for tensor in pair)
        return [*layers, *calibration_tensors(self.calibration)]

    def effective_tensors(self) -> list[Floats]:
        """Return the tensors that answers depend on: all."""
        return self.tensors()

    def with_classes(self, count: int) -> "NetworkParameters":
        """Return parameters with `count` more classes in the head's layer, as `LinearParameters.with_classes`."""
        return replace(self, weights=append_mean_columns(self.weights, count), bias=_extend_bias(self.bias, count))

    def arrays(self) -> Arrays:
        """Return all arrays by name; `from_arrays` is the reverse, given the head, the activations and `clips`."""
        arrays: Arrays = {}
        for number, (weights, bias) in enumerate(self.affine_layers()):
            arrays |= {f"layers.{number}.weights": weights, f"layers.{number}.bias": bias}
        return arrays | _stage_arrays(self.stage) | _calibration_arrays(self.calibration)

    def clips(self) -> dict[str, float | None]:
        """Return the clip of the stage, if there is one, by the name of its arrays."""
        return {} if self.stage is None else {"stage": self.stage.clip}

    @classmethod
    def from_arrays(
        cls,
        head: Head,
        activations: tuple[Activation, ...],
        arrays: Mapping[str, NDArray[np.floating[Any]]],
        clips: Mapping[str, float | None],
    ) -> "NetworkParameters":
        """Return the parameters with these arrays and clips, and these activations of the hidden layers."""
        affine = [(arrays[f"layers.{n}.weights"], arrays[f"layers.{n}.bias"]) for n in range(len(activations) + 1)]
        hidden = tuple(
            LayerArrays(*pair, activation) for pair, activation in zip(affine[:-1], activations, strict=True)
        )
        stage = _stage_from_arrays("stage", arrays, clips["stage"]) if "stage" in clips else None
        return cls(head, hidden, *affine[-1], stage, calibration_from_tensors(head, arrays))


Parameters = LinearParameters | NetworkParameters


def append_mean_columns(columns: Any, count: int) -> Any:  # noqa: ANN401  # arrays of one dtype, in and out
    """Return columns (M, K) and `count` more, each the mean of the first K, summed in order in float64."""
    means = np.add.accumulate(columns.astype(np.float64), axis=1)[:, -1:] / columns.shape[1]
    return np.hstack([columns, np.repeat(means, count, axis=1).astype(columns.dtype)])


def _extend_bias(bias: Floats, count: int) -> Floats:
    """Return a bias (K + count,) whose new classes are at the mean minus ln 100."""
    extended = append_mean_columns(bias[None].astype(np.float64), count)[0]
    extended[bias.size :] += NEW_CLASS
    return np.asarray(extended.astype(bias.dtype))


def _calibrate(model: Classifier, calibration: Calibration | None) -> Classifier:
    return model if calibration is None else CalibratedModel(model, calibration)


def _stage_arrays(stage: Stage | None) -> Arrays:
    return {} if stage is None else {"stage.mean": stage.mean, "stage.scale": stage.scale}


def _calibration_arrays(calibration: Calibration | None) -> Arrays:
    return {} if calibration is None else {"calibration": calibration.to_tensor()}


def _stage_from_arrays(name: str, arrays: Mapping[str, NDArray[np.floating[Any]]], clip: float | None) -> Stage:
    mean, scale = (arrays[f"{name}.{part}"].astype(np.float64, copy=False) for part in ("mean", "scale"))
    return Stage(mean, scale, clip)
