"""Convert a fitted classifier of scikit-learn, as data, to a model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from service.convert.columns.field_choice import choose_fields
from service.convert.columns.input_weights import InputWeights
from service.convert.columns.raw_inputs import ColumnError, RawInputs
from service.convert.converted_model import ConvertedModel
from service.convert.scikit.classifier_heads import name_class
from service.convert.scikit.pipeline import classify
from service.convert.scikit.plain_object import PlainObject
from service.convert.scikit.row_source import RowSource
from service.convert.scikit.step import Step
from service.errors import ConversionError


class ConvertedEstimator(NamedTuple):
    """A converted classifier.

    Attributes:
        model: The model.
        inputs: The values of a row, and what the source receives.
    """

    model: ConvertedModel
    inputs: RawInputs


def convert_estimator(
    part: PlainObject,
    *,
    classes: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    training_rows: int | None = None,
) -> ConvertedEstimator:
    """Return a fitted classifier as a model, in float64.

    Args:
        part: The classifier, a pipeline or a search.
        classes: The names of the classes, in its order; by default its own.
        features: The names of the values of a row, in the order of its columns; by default its own.
        training_rows: The number of rows that it was trained on, if its steps do not know it.

    Raises:
        ConversionError: It cannot be converted; the message names the part and its place.
    """
    try:
        # What overflows is refused with the weights.
        with np.errstate(all="ignore"):
            return _convert(part, classes, features, training_rows)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        # A fitted estimator fits itself; parts of a file may be put together by hand.
        raise ConversionError("The parts of the model contradict each other.") from None


def _convert(
    part: PlainObject, classes: Sequence[str] | None, features: Sequence[str] | None, training_rows: int | None
) -> ConvertedEstimator:
    inputs = RawInputs()
    inputs.note_rows(training_rows)
    network = classify(Step(part, ""), RowSource(inputs))
    if features is not None:
        if len(features) != len(inputs):
            raise ConversionError(f"A row has {len(inputs)} values, and {len(features)} names are given.")
        for column, name in zip(inputs.columns, features, strict=True):
            column.name = name
    names = list(classes) if classes is not None else [name_class(value) for value in network.classes]
    if len(names) != len(network.classes):
        raise ConversionError(f"The model has {len(network.classes)} classes, and {len(names)} names are given.")
    first, *rest = network.layers
    weights = InputWeights(inputs, len(first.bias))
    try:
        for branch in network.branches:
            branch.matrix.add_weights(branch.weight, weights)
        choice = choose_fields(weights)
    except ColumnError as error:
        raise ConversionError(f"the model: {error}.") from None
    model = ConvertedModel(
        network.head,
        names,
        [replace(first, weight=choice.weight, bias=first.bias + choice.bias), *rest],
        choice.fields,
        choice.features,
        choice.tensors,
        choice.others,
        choice.training,
        provenance={"source": f"scikit-learn, {part.name}"},
    )
    return ConvertedEstimator(model, inputs)
