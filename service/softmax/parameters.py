"""The parameters that a learner publishes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.added_classes import append_mean_columns, extend_bias
from service.softmax.arrays import Floats
from service.softmax.calibration import CalibratedModel, Calibration, calibration_from_tensors, calibration_tensors
from service.softmax.classifier import Classifier, Head
from service.softmax.input_stage import Delta, Stage
from service.softmax.kernels.network import Activation, LayerArrays
from service.softmax.learner_tensors import tensors_below
from service.softmax.linear_model import LinearModel
from service.softmax.mixture_model import MixtureArrays, MixtureModel
from service.softmax.network_model import NetworkModel
from service.softmax.sparse_parameters import SparseParameters

Arrays = dict[str, NDArray[np.floating[Any]]]

# Of the names of arrays that only a mixture has, and of those of the trained model that it adds to.
MIXTURE_PREFIX: Final = "mixture."
OFFSET_PREFIX: Final = "offset."


@dataclass(frozen=True, eq=False)
class LinearParameters:
    """The parameters of a linear model: own arrays, in the model's dtype."""

    head: Head
    weights: Floats
    bias: Floats
    stage: Stage | None = None
    delta: Delta | None = None
    calibration: Calibration | None = None

    @property
    def n_logits(self) -> int:
        """K."""
        return self.bias.size

    @property
    def n_features(self) -> int:
        """N, the width of a raw row."""
        return len(self.weights)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the model."""
        return self.weights.dtype

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
        weights, bias = append_mean_columns(self.weights, count), extend_bias(self.bias, count)
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

    @property
    def n_logits(self) -> int:
        """K."""
        return self.bias.size

    @property
    def n_features(self) -> int:
        """N, the width of a raw row."""
        return len(self.hidden[0].weights)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the model."""
        return self.weights.dtype

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
        return replace(self, weights=append_mean_columns(self.weights, count), bias=extend_bias(self.bias, count))

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


@dataclass(frozen=True, eq=False)
class MixtureParameters:
    """The parameters of a mixture of experts: own arrays.

    Attributes:
        head: softmax or sigmoid.
        experts: The weights of the experts, their inputs and the mixture.
        offset: The trained parameters whose logits are added to those of the experts, or None.
        calibration: The calibration of the logits, or None.
    """

    head: Head
    experts: MixtureArrays
    offset: LinearParameters | None = None
    calibration: Calibration | None = None

    @property
    def n_logits(self) -> int:
        """K."""
        return self.experts.n_logits

    @property
    def n_features(self) -> int:
        """N, the width of a raw row."""
        return self.experts.n_features

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the model."""
        return self.experts.base.dtype

    @property
    def _layer(self) -> LinearParameters:
        """The offset, or weights of 0, as an artifact has them."""
        return self.offset or LinearParameters(self.head, *_zero_layer(self.experts))

    def build_model(self) -> Classifier:
        """Return the model with these parameters.

        Raises:
            ValueError: They form no model.
        """
        offset = None if self.offset is None else self.offset.build_model()
        return _calibrate(MixtureModel(self.head, self.experts, offset), self.calibration)

    def tensors(self) -> list[Floats]:
        """Return all tensors in the order of their hash: the offset's, those of the experts, the calibration."""
        return self._hashed(self._layer.tensors())

    def effective_tensors(self) -> list[Floats]:
        """Return the tensors that answers depend on: all but a delta of zeros."""
        return self._hashed(self._layer.effective_tensors())

    def _hashed(self, layer: list[Floats]) -> list[Floats]:
        return [*layer, *self.experts.arrays().values(), *calibration_tensors(self.calibration)]

    def with_classes(self, count: int) -> "MixtureParameters":
        """Return parameters with `count` more classes, as `LinearParameters.with_classes`.

        The lower bias is the offset's, which may be new: weights of 0.
        """
        return replace(self, experts=self.experts.with_classes(count), offset=self._layer.with_classes(count))

    def arrays(self) -> Arrays:
        """Return all arrays by name; `from_arrays` is the reverse, given the head and `clips`."""
        arrays: Arrays = {MIXTURE_PREFIX + name: array for name, array in self.experts.arrays().items()}
        if self.offset is not None:
            arrays |= {OFFSET_PREFIX + name: array for name, array in self.offset.arrays().items()}
        return arrays | _calibration_arrays(self.calibration)

    def clips(self) -> dict[str, float | None]:
        """Return the clip of each stage of the offset, by the name of its arrays."""
        clips = {} if self.offset is None else self.offset.clips()
        return {OFFSET_PREFIX + name: clip for name, clip in clips.items()}

    @classmethod
    def from_arrays(
        cls, head: Head, arrays: Mapping[str, NDArray[np.floating[Any]]], clips: Mapping[str, float | None]
    ) -> "MixtureParameters":
        """Return the parameters with these arrays and clips."""
        inner, own = tensors_below(arrays, OFFSET_PREFIX), tensors_below(arrays, MIXTURE_PREFIX)
        offset_clips = {name.removeprefix(OFFSET_PREFIX): clip for name, clip in clips.items()}
        offset = LinearParameters.from_arrays(head, inner, offset_clips) if inner else None
        return cls(head, MixtureArrays.from_arrays(own), offset, calibration_from_tensors(head, arrays))


DenseParameters = LinearParameters | NetworkParameters | MixtureParameters
Parameters = DenseParameters | SparseParameters


def _zero_layer(experts: MixtureArrays) -> tuple[Floats, Floats]:
    """Return weights (N, K) and bias (K,) of 0."""
    weights = np.zeros((experts.n_features, experts.n_logits), experts.base.dtype)
    return weights, np.zeros(experts.n_logits, experts.base.dtype)


def _calibrate(model: Classifier, calibration: Calibration | None) -> Classifier:
    return model if calibration is None else CalibratedModel(model, calibration)


def _stage_arrays(stage: Stage | None) -> Arrays:
    return {} if stage is None else {"stage.mean": stage.mean, "stage.scale": stage.scale}


def _calibration_arrays(calibration: Calibration | None) -> Arrays:
    return {} if calibration is None else {"calibration": calibration.to_tensor()}


def _stage_from_arrays(name: str, arrays: Mapping[str, NDArray[np.floating[Any]]], clip: float | None) -> Stage:
    mean, scale = (arrays[f"{name}.{part}"].astype(np.float64, copy=False) for part in ("mean", "scale"))
    return Stage(mean, scale, clip)
