"""Export a learned model as an artifact: it answers with the same bits and continues to learn where it stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from service.errors import ArtifactError
from service.softmax.input_stage import Stage
from service.softmax.mixture_model import MixtureArrays
from service.softmax.parameters import (
    MIXTURE_PREFIX,
    LinearParameters,
    MixtureParameters,
    NetworkParameters,
    Parameters,
)
from service.softmax.rule import Form
from service.softmax.sparse_parameters import SparseParameters
from service.store.artifact.artifact import Artifact
from service.store.artifact.calibration_record import describe_calibration
from service.store.artifact.manifest import LearningRecord, Manifest
from service.store.artifact.manifest_json import manifest_from_fields

DELTA_TENSOR = "delta.weight"
THRESHOLD = 0.5
# Fields of a manifest that do not hold for what was learned: probabilities and metrics are those of the trained model.
NOT_EXPORTED: Final = {"format_version", "tensors_sha256", "metrics", "examples"}


def build_artifact(
    artifact: Artifact,
    served: Parameters,
    *,
    form: Form,
    rows: int,
    learning: LearningRecord,
    classes: Sequence[str],
    provenance: Mapping[str, str],
) -> Artifact:
    """Return an artifact with learned parameters.

    The learned rows count as training rows, so the exported weights are as firm as they have become. A running stage
    becomes the artifact's stage, and its statistics become the training statistics.

    Args:
        artifact: The artifact that the learning started from.
        served: The learned parameters.
        form: What was learned, such as "delta".
        rows: The number of rows that were learned.
        learning: The rule and its constants.
        classes: The names of all classes.
        provenance: Where the model comes from.

    Raises:
        ArtifactError: `classes` are not as many as the model's, or do not begin with the artifact's.
    """
    manifest = artifact.manifest
    fields = _shared_fields(manifest, served, learning, classes, provenance)
    # Both list the layers' tensors in one order; a delta, which may be new, is added below.
    layers = _layers(artifact, served)
    tensors = artifact.fixed_tensors | dict(zip(manifest.weight_names, layers.tensors(), strict=False))
    if layers.stage is not None:
        fields["stage"] = _statistics(layers.stage) | ({} if layers.stage.clip is None else {"clip": layers.stage.clip})
    if manifest.fields is None:
        fields["training"] = _training(manifest, served, layers, form, rows)
    else:
        fields["training"] = _training_of_fields(manifest, rows)
    if isinstance(layers, LinearParameters) and layers.delta is not None:
        name = DELTA_TENSOR if manifest.delta is None else manifest.delta.weight
        fields["delta"] = {"weight": name, "clip": layers.delta.stage.clip}
        tensors[name] = layers.delta.weights
    if isinstance(served, MixtureParameters):
        fields["mixture"] = _mixture_fields(served.experts)
        tensors |= {MIXTURE_PREFIX + name: getattr(served.experts, name) for name in _tensors_of(served.experts)}
    return Artifact.from_fields(fields, tensors)


def learned_manifest(
    artifact: Artifact,
    served: SparseParameters,
    *,
    rows: int,
    learning: LearningRecord,
    classes: Sequence[str],
    provenance: Mapping[str, str],
) -> Manifest:
    """Return the manifest of the artifact that `build_artifact` makes of a sparse model, without its weights.

    Args:
        artifact: The artifact that the learning started from.
        served: The learned parameters, of which the weights are not read.
        rows: The number of rows that were learned.
        learning: The rule and its constants.
        classes: The names of all classes.
        provenance: Where the model comes from.

    Raises:
        ArtifactError: As for `build_artifact`.
    """
    fields = _shared_fields(artifact.manifest, served, learning, classes, provenance)
    return manifest_from_fields({**fields, "training": _training_of_fields(artifact.manifest, rows)})


def _shared_fields(
    manifest: Manifest,
    served: Parameters,
    learning: LearningRecord,
    classes: Sequence[str],
    provenance: Mapping[str, str],
) -> dict[str, Any]:
    """Return the fields of a learned manifest that do not depend on the kind of model."""
    K = 2 if served.head == "sigmoid" else served.n_logits
    if len(classes) != K or tuple(classes[: len(manifest.classes)]) != manifest.classes:
        raise ArtifactError("classes must be those of the artifact, then the added ones, in their order")
    fields: dict[str, Any] = manifest.model_dump(mode="json", exclude_none=True, exclude=NOT_EXPORTED)
    fields |= {"classes": list(classes), "learning": learning.model_dump(), "provenance": dict(provenance)}
    if manifest.thresholds is not None:
        fields["thresholds"] = [*manifest.thresholds, *[THRESHOLD] * (K - len(manifest.thresholds))]
    if manifest.calibration is not None:
        fields["calibration"] = describe_calibration(manifest.calibration, served.calibration)
    return fields


def _training_of_fields(manifest: Manifest, rows: int) -> dict[str, object] | None:
    """Return the field `training` of a manifest with fields after some rows were learned; None without rows.

    Columns of fields have no statistics. Their support stays that of the rows that the model was trained on.
    """
    known = manifest.training
    support = {} if known is None else known.model_dump(include={"support"})
    rows += 0 if known is None else known.rows
    return {"rows": rows, **support} if rows else None


def _training(
    manifest: Manifest, served: Parameters, layers: LinearParameters | NetworkParameters, form: Form, rows: int
) -> dict[str, object] | None:
    """Return the field `training` of a manifest after some rows were learned; None if it is unknown."""
    known = manifest.training
    if known is not None:
        delta = layers.delta if isinstance(layers, LinearParameters) else None
        # Statistics that the dtype cannot hold were not learned from; in the stage of the delta they are 0 and 1.
        own = {"mean": known.mean, "scale": known.scale} if delta is None else _statistics(delta.stage)
        return {"rows": known.rows + rows, **own}
    if isinstance(served, MixtureParameters):
        return {"rows": rows, **_statistics(served.experts.input_stage())}
    if form in {"running", "mixture"} and layers.stage is not None and rows:
        return {"rows": rows, **_statistics(layers.stage)}
    return None


def _layers(artifact: Artifact, served: Parameters) -> LinearParameters | NetworkParameters:
    """Return what the layers of an exported artifact are: of a mixture its offset, or weights of 0."""
    if isinstance(served, SparseParameters):
        return LinearParameters(served.head, *served.weights.to_matrix(), calibration=served.calibration)
    if not isinstance(served, MixtureParameters):
        return served
    if served.offset is not None:
        return replace(served.offset, calibration=served.calibration)
    weights, K = artifact.weights, served.n_logits
    zeros = np.zeros((len(weights), K), weights.dtype)
    return LinearParameters(served.head, zeros, zeros[0].copy(), calibration=served.calibration)


def _tensors_of(experts: MixtureArrays) -> list[str]:
    """Return the names of the arrays of a mixture that are tensors of an artifact."""
    return ["features", "base", *([] if experts.is_wide else ["linear"]), "stage"]


def _mixture_fields(experts: MixtureArrays) -> dict[str, object]:
    """Return the field `mixture` of a manifest."""
    features, seed = map(int, experts.draw)
    names = {name: MIXTURE_PREFIX + name for name in _tensors_of(experts)}
    weights = {"weights": experts.weights.tolist(), "frequencies": experts.frequencies.tolist()}
    return names | weights | {"random_features": features, "seed": seed}


def _statistics(stage: Stage) -> dict[str, object]:
    return {"mean": stage.mean.tolist(), "scale": stage.scale.tolist()}
