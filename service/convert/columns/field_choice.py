"""Choose the fields of a row, and make the weights of their columns of the weights of its values.

A number is scaled as the source's first scaler does it, so that feedback learns on scaled numbers: its weight is
multiplied by the scale, and the mean moves to the bias.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from service.convert.columns.category_weights import CategoryWeights
from service.convert.columns.input_weights import InputWeights, TermWeights
from service.convert.columns.raw_inputs import ColumnError, RawInput
from service.fields.term_table import pack_names
from service.record import NAME_CHARACTERS_MAX
from service.softmax.arrays import Doubles
from service.store.artifact.tensors import Array

# Longer lists of terms are tensors, so that a manifest stays readable.
LISTED_TERMS_MAX: Final = 1000


@dataclass
class FieldChoice:
    """The fields of a row, or its features, and the weights of their columns.

    Attributes:
        weights: The weights (N, K) float64 of the columns, in pieces.
        bias: (K,) float64.
        fields: The records of the fields, or None if a row is numbers.
        features: The names of the numbers, or None.
        tensors: The tensors that the fields name.
        others: Whether other names of a row are ignored.
        training: `training` of the manifest, or None.
    """

    bias: Doubles
    weights: list[Doubles] = field(default_factory=list)
    fields: list[dict[str, Any]] | None = None
    features: list[str] | None = None
    tensors: dict[str, Array] = field(default_factory=dict)
    others: Literal["refuse", "ignore"] = "refuse"
    training: Mapping[str, Any] | None = None

    @property
    def weight(self) -> Doubles:
        """The weights (N, K) float64 of all columns."""
        return np.concatenate(self.weights)


def choose_fields(weights: InputWeights) -> FieldChoice:
    """Return the fields of a row and the weights of their columns.

    Raises:
        ColumnError: The model uses no value, or one in a way that no field has.
    """
    inputs = weights.inputs
    if _are_features(weights):
        choice = FieldChoice(weights.bias, [weights.slope], features=[column.name for column in inputs.columns])
        choice.training = _describe_training(weights)
        return choice
    choice = FieldChoice(weights.bias.copy(), fields=[])
    for index, column in enumerate(inputs.columns):
        _add_fields(choice, weights, index, column)
    if not choice.fields:
        raise ColumnError("the model uses no value of a row")
    used = weights.is_sloped | weights.is_flagged
    scaled = all(column.scale is not None for column, number in zip(inputs.columns, used, strict=True) if number)
    if inputs.rows is not None and scaled:
        choice.training = {"rows": inputs.rows}
    if {name for record in choice.fields for name in [record.get("source", record["name"])]} != {
        column.name for column in inputs.columns
    }:
        choice.others = "ignore"
    return choice


def _are_features(weights: InputWeights) -> bool:
    """Return whether a row is plain numbers, all of which the source reads, without gaps."""
    return (
        weights.inputs.form == "matrix"
        and not weights.categories
        and not weights.terms
        and all(column.is_read for column in weights.inputs.columns)
        and bool(np.isnan(weights.fill).all())
        and not weights.is_flagged.any()
        and bool(np.isinf(weights.low).all() and np.isinf(weights.high).all())
    )


def _describe_training(weights: InputWeights) -> dict[str, Any] | None:
    columns = weights.inputs.columns
    if weights.inputs.rows is None or any(column.scale is None for column in columns):
        return None
    return {
        "rows": weights.inputs.rows,
        "mean": [column.mean for column in columns],
        "scale": [column.scale for column in columns],
    }


def _add_fields(choice: FieldChoice, weights: InputWeights, index: int, column: RawInput) -> None:
    """Add the fields that read one value."""
    category = weights.categories.get(index)
    is_number = bool(weights.is_sloped[index])
    is_flagged = bool(weights.is_flagged[index])
    if category is not None and is_flagged and not is_number:
        marks = CategoryWeights((), np.stack([np.zeros_like(weights.bias), weights.flag[index]]))
        category, is_flagged = category.join(marks), False
    names = _FieldNames(column.name)
    if is_number or is_flagged:
        _add_number(choice, weights, index, column, names.take())
    if category is not None:
        _add_category(choice, category, names.take())
    for terms in weights.terms.get(index, ()):
        _add_terms(choice, terms, names.take())


class _FieldNames:
    """The names of the fields that read one value: its own, then those with a number, which name the value too."""

    def __init__(self, source: str) -> None:
        self._source: Final = source
        self._count = 0

    def take(self) -> dict[str, Any]:
        """Return the members `name` and `source` of the next field."""
        self._count += 1
        if self._count == 1:
            return {"name": self._source}
        return {"name": f"{self._source[: NAME_CHARACTERS_MAX - 8]} ({self._count})", "source": self._source}


def _add_number(
    choice: FieldChoice, weights: InputWeights, index: int, column: RawInput, names: dict[str, Any]
) -> None:
    mean = column.mean if column.mean is not None else 0.0
    scale = column.scale if column.scale is not None else 1.0
    slope, gap = weights.slope[index], weights.jump[index] + weights.flag[index]
    low, high = float(weights.low[index]), float(weights.high[index])
    record: dict[str, Any] = {**names, "kind": "number"}
    if math.isfinite(low) or math.isfinite(high):
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ColumnError("a number is cut at one end only")
        mean, scale = low + (high - low) / 2, (high - low) / 2
        record["clip"] = 1.0
    record |= {"mean": mean, "scale": scale}
    choice.bias += slope * mean
    choice.weights.append((slope * scale)[None])
    choice.fields = [*(choice.fields or ()), record]
    if weights.refuses_missing[index]:
        record["missing"] = "refuse"
        return
    fill = float(weights.fill[index])
    is_filled = not math.isnan(fill) and not weights.fills_differ[index] and low <= fill <= high
    if is_filled:
        record["missing"] = "mean" if fill == mean else {"value": fill}
        mark = weights.flag[index]
    else:
        record["missing"] = "mean"
        mark = gap - slope * mean
    if weights.is_flagged[index] or not is_filled:
        record["flag"] = True
        choice.weights.append(mark[None])


def _add_category(choice: FieldChoice, weights: CategoryWeights, names: dict[str, Any]) -> None:
    if not weights.values:
        raise ColumnError("a column has no category that the model accepts")
    unknown, missing = weights.rows[-2], weights.rows[-1]
    record: dict[str, Any] = {**names, "kind": "category", "values": list(weights.values)}
    pieces = [weights.rows[:-2]]
    if weights.refuses_unknown:
        record["unknown"] = "refuse"
    elif unknown.any():
        record["unknown"] = "other"
        pieces.append(unknown[None])
    if weights.refuses_missing:
        record["missing"] = "refuse"
    elif weights.fill is not None:
        record["missing"] = {"value": weights.fill}
    elif missing.any():
        record["missing"] = "column"
        pieces.append(missing[None])
    choice.fields = [*(choice.fields or ()), record]
    choice.weights += pieces


def _add_terms(choice: FieldChoice, terms: TermWeights, names: dict[str, Any]) -> None:
    draft = terms.draft
    fields = choice.fields or []
    place = len(fields)
    record: dict[str, Any] = {**names, **draft.record}
    if draft.terms is not None:
        if len(draft.terms) <= LISTED_TERMS_MAX:
            record["terms"] = list(draft.terms)
        else:
            text, _, ends = pack_names([term.encode() for term in draft.terms])
            record["terms"] = {"bytes": f"terms_{place}", "ends": f"ends_{place}"}
            choice.tensors |= {f"terms_{place}": text, f"ends_{place}": ends}
    if draft.idf is not None:
        record["idf"] = f"idf_{place}"
        choice.tensors[f"idf_{place}"] = draft.idf
    choice.fields = [*fields, record]
    choice.weights.append(terms.weights)
