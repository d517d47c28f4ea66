"""The model of an artifact: the only module that reads the layers, stages and delta of a manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.fields.field_records import NumberField
from service.fields.tracked_columns import TrackedColumns, find_tracked_columns
from service.softmax.arrays import Doubles
from service.softmax.calibration_learner import CalibrationLearner
from service.softmax.input_stage import Delta, Stage, identity_stage
from service.softmax.kernels.network import Activation, LayerArrays
from service.softmax.mixture_model import MixtureArrays
from service.softmax.parameters import (
    MIXTURE_PREFIX,
    LinearParameters,
    MixtureParameters,
    NetworkParameters,
    Parameters,
)
from service.softmax.row_protocols import RowModel
from service.softmax.rule import Form
from service.softmax.sparse_parameters import SparseParameters
from service.store.artifact.artifact import Artifact
from service.store.artifact.manifest import Manifest
from service.store.artifact.mixture_record import MixtureRecord


def build_stage(artifact: Artifact) -> Stage | None:
    """Return the input stage of an artifact, or None if its weights use raw rows."""
    stage = artifact.manifest.stage
    return None if stage is None else Stage(np.array(stage.mean), np.array(stage.scale), stage.clip)


def training_stage(artifact: Artifact) -> Stage | None:
    """Return the stage by which training statistics standardize rows, or None if they are unknown.

    Fields scale their columns themselves, so their columns have mean 0 and scale 1.
    """
    manifest = artifact.manifest
    if manifest.fields is not None:
        return None if artifact.has_sparse_rows else identity_stage(artifact.n_features)
    training = manifest.training
    return None if training is None else Stage(np.array(training.mean), np.array(training.scale))


def training_statistics(artifact: Artifact) -> dict[str, Any] | None:
    """Return the number of training rows, and the mean and scale of their features, or of the fields that are numbers.

    Returns:
        These as JSON values, or None if they are unknown.
    """
    manifest, training = artifact.manifest, artifact.manifest.training
    if training is None:
        return None
    if manifest.fields is not None:
        numbers = [field for field in manifest.fields if isinstance(field, NumberField)]
        mean, scale = ([getattr(field, name) for field in numbers] for name in ("mean", "scale"))
        return {"rows": training.rows, "mean": mean, "scale": scale}
    return training.model_dump(include={"rows", "mean", "scale"})


def tracked_columns(artifact: Artifact) -> TrackedColumns | None:
    """Return the columns of fields whose means a history has; None for a model of features, which has all."""
    return None if artifact.row_encoder is None else find_tracked_columns(artifact.row_encoder)


def build_delta(artifact: Artifact) -> Delta | None:
    """Return the delta, which acts on rows that the training statistics standardize, or None without one."""
    delta, stage = artifact.manifest.delta, training_stage(artifact)
    if delta is None or stage is None:
        return None
    return Delta(artifact.tensors[delta.weight], replace(stage, clip=delta.clip))


def initial_parameters(artifact: Artifact) -> Parameters:
    """Return the parameters of an artifact before anything is learned: state(0)."""
    manifest, tensors = artifact.manifest, artifact.tensors
    if artifact.has_sparse_rows:
        return sparse_parameters(artifact, ())
    if not manifest.hidden:
        stage, delta = build_stage(artifact), build_delta(artifact)
        linear = LinearParameters(manifest.head, artifact.weights, artifact.bias, stage, delta, manifest.scaling)
        return linear if manifest.mixture is None else _build_mixture(artifact, manifest.mixture, linear)
    hidden = tuple(
        LayerArrays(tensors[layer.weight], tensors[layer.bias], activation)
        for layer, activation in zip(manifest.hidden, hidden_activations(manifest), strict=True)
    )
    stage = build_stage(artifact)
    return NetworkParameters(manifest.head, hidden, artifact.weights, artifact.bias, stage, manifest.scaling)


def restore_parameters(
    manifest: Manifest, arrays: Mapping[str, NDArray[np.floating[Any]]], clips: Mapping[str, float | None]
) -> Parameters:
    """Restore learned parameters from their arrays and clips.

    Args:
        manifest: The manifest of the artifact that was learned from.
        arrays: The arrays of the parameters, by name.
        clips: The clips of the parameters, by name.

    Raises:
        KeyError: An array is missing.
    """
    if "base" in arrays:
        return SparseParameters.from_arrays(manifest.head, arrays)
    if not manifest.hidden:
        is_mixture = any(name.startswith(MIXTURE_PREFIX) for name in arrays)
        form = MixtureParameters if is_mixture else LinearParameters
        return form.from_arrays(manifest.head, arrays, clips)
    return NetworkParameters.from_arrays(manifest.head, hidden_activations(manifest), arrays, clips)


def sparse_parameters(artifact: Artifact, added_classes: Sequence[int]) -> SparseParameters:
    """Return the parameters of a sparse model before any row is learned, with added classes.

    A checkpoint and a BASE hold the columns that differ from these. So a later release needs the same weights of added
    classes (`SparseWeights.with_classes`), whatever its fold computes.

    Args:
        artifact: The artifact.
        added_classes: The number of classes of each addition, in order.
    """
    weights = artifact.sparse_weights
    for count in added_classes:
        weights = weights.with_classes(count)
    return SparseParameters(artifact.manifest.head, weights, artifact.manifest.scaling)


def first_squares(artifact: Artifact, form: Form, constants: Mapping[str, float]) -> Doubles | None:
    """Return the first sums G (N + 1,) of the bias and of each column; None if they are unknown, or the form has none.

    They are firmness times the sum of the squares of the column over the training rows. So the weights of a frequent
    column hold, and a new one learns at once.

    Args:
        artifact: The artifact.
        form: The form of learning.
        constants: Every constant in effect.
    """
    training = artifact.manifest.training
    if form not in {"plain", "delta"} or training is None or training.support is None:
        return None
    squares = np.empty(artifact.n_features + 1)
    squares[0], squares[1:] = training.rows, artifact.tensors[training.support]
    squares *= constants.get("firmness", 0.0)
    return squares


def _build_mixture(artifact: Artifact, record: MixtureRecord, linear: LinearParameters) -> MixtureParameters:
    """Return the parameters of a mixture; `linear` has the layers of the artifact, and its calibration."""
    tensors, dtype = artifact.tensors, artifact.weights.dtype
    empty = np.zeros((0, artifact.manifest.n_outputs), dtype)
    experts = MixtureArrays(
        tensors[record.features],
        tensors[record.base],
        empty if record.linear is None else tensors[record.linear],
        tensors[record.stage],
        *record.numbers,
    )
    offset = replace(linear, calibration=None)
    has_effect = any(tensor.any() for tensor in offset.tensors())
    return MixtureParameters(linear.head, experts, offset if has_effect else None, linear.calibration)


def calibration_learner_of(artifact: Artifact) -> CalibrationLearner | None:
    """Return the learner of an artifact's calibration, or None if it has no calibration."""
    record = artifact.manifest.calibration
    return None if record is None else CalibrationLearner(artifact.manifest.head, record.scaling(), learn=record.learn)


def hidden_activations(manifest: Manifest) -> tuple[Activation, ...]:
    """Return the activation of each hidden layer."""
    return tuple(layer.activation for layer in manifest.hidden if layer.activation != "identity")


def build_model(artifact: Artifact) -> RowModel:
    """Return the model of an artifact.

    Raises:
        ValueError: A statistic cannot be represented in the model's dtype.
    """
    return build_row_model(initial_parameters(artifact))


def build_row_model(parameters: Parameters) -> RowModel:
    """Return the model of parameters, which takes rows in the form of its artifact.

    Raises:
        ValueError: The parameters form no model.
    """
    return parameters.build_model()
