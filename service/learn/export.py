"""Export a learned model as an artifact: it answers with the same bits and continues to learn where it stopped."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.errors import ArtifactError
from service.softmax.input_stage import Stage
from service.softmax.parameters import Form, LinearParameters, Parameters
from service.store.artifact.artifact import Artifact
from service.store.artifact.calibration_record import describe_calibration
from service.store.artifact.manifest import LearningRecord

DELTA_TENSOR = "delta.weight"
THRESHOLD = 0.5


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
    K = 2 if served.head == "sigmoid" else served.bias.size
    if len(classes) != K or tuple(classes[: len(manifest.classes)]) != manifest.classes:
        raise ArtifactError("classes must be those of the artifact, then the added ones, in their order")
    # Both list the layers' tensors in one order; a delta, which may be new, is added below.
    tensors = dict(zip(manifest.tensor_names, served.tensors(), strict=False))
    fields: dict[str, Any] = manifest.model_dump(
        mode="json", exclude_none=True, exclude={"format_version", "tensors_sha256", "metrics"}
    )
    fields |= {"classes": list(classes), "learning": learning.model_dump(), "provenance": dict(provenance)}
    if manifest.thresholds is not None:
        fields["thresholds"] = [*manifest.thresholds, *[THRESHOLD] * (K - len(manifest.thresholds))]
    if served.stage is not None:
        fields["stage"] = _statistics(served.stage) | ({} if served.stage.clip is None else {"clip": served.stage.clip})
    if manifest.training is not None:
        fields["training"] = manifest.training.model_dump() | {"rows": manifest.training.rows + rows}
    elif form == "running" and served.stage is not None and rows:
        fields["training"] = _statistics(served.stage) | {"rows": rows}
    if manifest.calibration is not None:
        fields["calibration"] = describe_calibration(manifest.calibration, served.calibration)
    if isinstance(served, LinearParameters) and served.delta is not None:
        # Statistics that the dtype cannot hold were not learned from; here they are 0 and 1.
        fields["training"] |= _statistics(served.delta.stage)
        name = DELTA_TENSOR if manifest.delta is None else manifest.delta.weight
        fields["delta"] = {"weight": name, "clip": served.delta.stage.clip}
        tensors[name] = served.delta.weights
    return Artifact.from_fields(fields, tensors)


def _statistics(stage: Stage) -> dict[str, object]:
    return {"mean": stage.mean.tolist(), "scale": stage.scale.tolist()}
