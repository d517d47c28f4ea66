"""Make an artifact of a fitted scikit-learn pipeline in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.convert.proof import prove
from service.convert.scikit.estimator import convert_estimator
from service.convert.scikit.pipeline_source import PipelineSource, ProbabilityClassifier
from service.convert.scikit.plain_object import plain_object
from service.convert.scikit.row_layout import RowLayout
from service.convert.training_rows import add_training_rows
from service.store.artifact.artifact import Artifact


def artifact_of(
    estimator: ProbabilityClassifier,
    *,
    classes: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    training_rows: int | None = None,
    rows: Sequence[Mapping[str, Any]] = (),
    training: Sequence[Mapping[str, Any]] = (),
) -> Artifact:
    """Return a fitted classifier of scikit-learn as an artifact, compared with its `predict_proba`.

    Every linear step is multiplied into the weights, and the steps before become fields of a row. At least 200
    generated rows and those in `rows` go through both sides.

    Args:
        estimator: The fitted classifier: a pipeline, a search over one, or a classifier alone.
        classes: The names of the classes, in the order of its `classes_`; by default these.
        features: The names of the values of a row, in the order of its columns; by default its own names, or `text`
            for a list of texts.
        training_rows: The number of rows that it was trained on, if its steps do not know it. It decides how firm the
            weights are when the model learns.
        rows: Further rows that are compared: objects of names and values.
        training: The rows that it was trained on, or a sample of `training_rows` of them: likewise objects. The
            squares of their columns decide how firm each weight is.

    Raises:
        ConversionError: A step is neither linear nor a field, or a probability differs by more than 1e-4; the message
            is one sentence that names it.
        ArtifactError: The model exceeds a limit of the service.
    """
    part = plain_object(estimator)
    converted = convert_estimator(part, classes=classes, features=features, training_rows=training_rows)
    model, layout = converted.model, RowLayout.of_model(converted.model, converted.inputs)
    if training:
        model = add_training_rows(model, [dict(row) for row in training], training_rows)
    return prove(model, PipelineSource(estimator, layout), [dict(row) for row in rows]).artifact
