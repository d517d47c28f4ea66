"""Make the artifact of a fitted model: weights, statistics of the training rows, metrics and examples."""

from typing import Any, Final

from service import __version__
from service.fields.column_blocks import FieldLimits
from service.fields.generated_rows import USUAL_ROWS, RowGenerator
from service.softmax.fitting import Fit
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import build_model
from service.store.artifact.tensors import Array
from service.train.evaluation import Evaluation, evaluate
from service.train.training import FittedModel, PreparedTable
from service.train.training_options import TrainingOptions

# As an answer of the service has float32.
EXAMPLE_DIGITS: Final = 6


def make_artifact(
    prepared: PreparedTable, fitted: FittedModel, options: TrainingOptions, limits: FieldLimits
) -> tuple[Artifact, Evaluation | None]:
    """Return the artifact of the best fit, and its metrics over the rows that are held out.

    Args:
        prepared: The file after pass 1.
        fitted: The fits.
        options: The options.
        limits: The limits of the fields.

    Raises:
        ArtifactError: The model exceeds a limit.
    """
    manifest: dict[str, Any] = {
        "head": prepared.survey.classes.head,
        "classes": list(prepared.survey.classes.names),
        "fields": fitted.fields.records,
        # Rows of an application have these columns too.
        "others": "ignore" if prepared.left_out else None,
        "training": {"rows": fitted.rows.trained.n_rows, "support": "support"},
        "provenance": _describe(prepared, fitted, options),
    }
    served = _make(manifest, fitted, "float32", limits)
    exact = _make(manifest, fitted, "float64", limits) if fitted.is_dense else served
    manifest["examples"] = _make_examples(exact, options.seed)
    evaluation = None
    if fitted.rows.held_out is not None:
        classes = prepared.survey.classes
        is_multilabel = classes.head == "multilabel"
        model = build_model(served)
        evaluation = evaluate(model, fitted.rows.held_out, len(classes.names), is_multilabel=is_multilabel)
        manifest["metrics"] = evaluation.metrics
    return _make(manifest, fitted, "float32", limits), evaluation


def _make(manifest: dict[str, Any], fitted: FittedModel, dtype: str, limits: FieldLimits) -> Artifact:
    """Return the artifact of the best fit in a dtype."""
    layers, tensors = _name_layers(fitted.best, dtype)
    tensors |= {"support": fitted.support.astype(dtype), **fitted.fields.tensors}
    return Artifact.from_fields({**manifest, "dtype": dtype, "layers": layers}, tensors, limits)


def _name_layers(best: Fit, dtype: str) -> tuple[list[dict[str, str]], dict[str, Array]]:
    """Return the layers of a fit as in a manifest, and their tensors; they have numbers if there are several."""
    arrays = [*((layer.weights, layer.bias) for layer in best.hidden), (best.weights, best.bias)]
    activations = [*(layer.activation for layer in best.hidden), "identity"]
    tensors: dict[str, Array] = {}
    layers = []
    for number, (pair, activation) in enumerate(zip(arrays, activations, strict=True)):
        suffix = f"_{number}" if best.hidden else ""
        names = f"weight{suffix}", f"bias{suffix}"
        tensors |= {name: array.astype(dtype) for name, array in zip(names, pair, strict=True)}
        layers.append({"weight": names[0], "bias": names[1], "activation": activation})
    return layers, tensors


def _make_examples(artifact: Artifact, seed: int) -> list[dict[str, Any]]:
    """Return rows that are made from the fields, with the probabilities of an artifact."""
    encoder = artifact.row_encoder
    if encoder is None:
        raise TypeError("the artifact has no fields")
    rows = RowGenerator(encoder, seed % 2**32).make_rows(0, USUAL_ROWS)
    model: Any = build_model(artifact)
    encoded = encoder.encode_objects(rows).rows
    P = model.float64_model.predict(encoded if artifact.has_sparse_rows else encoded.to_matrix(encoder.n_columns))
    return [
        {"row": row, "probabilities": [round(float(p), EXAMPLE_DIGITS) for p in probabilities]}
        for row, probabilities in zip(rows, P, strict=True)
    ]


def _describe(prepared: PreparedTable, fitted: FittedModel, options: TrainingOptions) -> dict[str, str]:
    """Return the provenance: nothing that differs between two runs."""
    how = (
        "the last tenth of the rows"
        if options.hold_out == "last"
        else f"a tenth of the rows by a hash, seed {options.seed}"
    )
    described = {
        "file": options.data.name,
        "label": options.label,
        "rows": str(prepared.survey.rows),
        "held_out": how,
        "trainer": f"softstep train {__version__}",
        "C": f"{fitted.best.C:g}",
    }
    if options.weight is not None:
        described["weight"] = options.weight
    if options.balance:
        described["balance"] = "all classes have the same weight"
    return described
