"""Add the statistics that fields lack: means, scales, values, terms and inverse document frequencies.

All of them are of the rows that are trained on. `--fields` may name some of them, and these stay as they are. A field
without them is a spec:

    kind         may lack                  may have
    number       mean, scale
    category     values (and bits)
    text         terms (and bits)          "idf": true, for the factors of the rows that are trained on
    bag          terms (and bits)
    vector       size, mean, scale
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from service.errors import TrainingError
from service.fields.field_list import Fields
from service.fields.field_records import FieldRecord
from service.fields.field_types import LIST_MAX
from service.fields.refusals import quote
from service.store.artifact.reasons import shorten_reason
from service.store.artifact.tensors import Array
from service.train.cell_values import WHOLE
from service.train.chosen_fields import Spec
from service.train.column_tally import DISTINCT_MAX, ColumnTally
from service.train.term_counts import TermCounts, inverse_frequencies, pack_terms

# A value of fewer rows shares the column `other` with the values that no row has.
ROWS_OF_A_VALUE: Final = 2
FIELDS: Final[TypeAdapter[Any]] = TypeAdapter(Fields)


class CompleteFields(NamedTuple):
    """Fields with their statistics.

    Attributes:
        records: The fields as in a manifest.
        tensors: The tensors that they name.
    """

    records: list[Spec]
    tensors: dict[str, Array]


def parse_specs(specs: object) -> tuple[list[Spec], tuple[FieldRecord, ...]]:
    """Return specs, and the fields that they are with statistics of one column in place of those that lack.

    Args:
        specs: A list of objects, from a file; or an object with this list as `fields`.

    Raises:
        TrainingError: They are no fields.
    """
    listed = specs.get("fields") if isinstance(specs, dict) else specs
    if not isinstance(listed, list) or not all(isinstance(spec, dict) for spec in listed):
        raise TrainingError("the file of fields must have a list of fields")
    try:
        fields = FIELDS.validate_json(json.dumps([_with_placeholders(spec) for spec in listed]))
    except ValidationError as error:
        raise TrainingError(f"the fields cannot be used: {_describe(error)}") from None
    return listed, fields


def column_of(spec: Spec) -> str:
    """Return the name of the column that a field reads."""
    name: str = spec.get("source") or spec["name"]
    return name


def needs_values(spec: Spec) -> bool:
    """Return whether a field is a category whose values are those of the rows."""
    return spec["kind"] == "category" and not spec.keys() & {"values", "bits"}


def needs_terms(spec: Spec) -> bool:
    """Return whether a field has terms or factors that are counted."""
    return spec["kind"] in {"text", "bag"} and (spec.get("idf") is True or not spec.keys() & {"terms", "bits"})


def complete_fields(
    specs: Sequence[Spec], tallies: Mapping[str, ColumnTally], terms: Mapping[str, TermCounts]
) -> CompleteFields:
    """Return the fields with all statistics.

    Args:
        specs: The fields, of which `parse_specs` has accepted each.
        tallies: The counts of their columns.
        terms: The terms of the fields that need them.

    Raises:
        TrainingError: A column has no values that its field could take.
    """
    records: list[Spec] = []
    tensors: dict[str, Array] = {}
    for i, spec in enumerate(specs):
        record = dict(spec)
        match spec["kind"]:
            case "number":
                _add_scaling(record, _get_tally(spec, tallies))
            case "vector":
                _add_vector_scaling(record, _get_tally(spec, tallies), f"field_{i}", tensors)
            case "category" if needs_values(spec):
                record["values"] = _list_values(spec, _get_tally(spec, tallies))
            case "text" | "bag" if needs_terms(spec):
                _add_terms(record, terms[spec["name"]], f"field_{i}", tensors)
        records.append(record)
    return CompleteFields(records, tensors)


def _with_placeholders(spec: Spec) -> Spec:
    """Return a field with statistics of one column in place of those that lack, to check all else."""
    filled = dict(spec)
    kind = filled.get("kind")
    if kind == "category" and needs_values(filled):
        value = filled.get("missing")
        filled["values"] = [value["value"] if isinstance(value, dict) and "value" in value else "value"]
    if kind in {"text", "bag"}:
        if not filled.keys() & {"terms", "bits"}:
            filled["bits"] = 1
            filled.pop("unknown", None)
        if filled.get("idf") is True:
            del filled["idf"]
    if kind == "vector":
        filled.setdefault("size", 1)
    return filled


def _describe(error: ValidationError) -> str:
    """Return the first problem of fields as a text without their values."""
    problem = error.errors(include_input=False, include_url=False)[0]
    place = " of ".join(str(part) for part in reversed(problem["loc"]) if isinstance(part, str))
    number = next((part for part in problem["loc"] if isinstance(part, int)), None)
    where = "" if number is None else f"field {number}: " + (f"{place}: " if place else "")
    return shorten_reason(f"{where}{problem['msg'].removeprefix('Value error, ')}")


def _get_tally(spec: Spec, tallies: Mapping[str, ColumnTally]) -> ColumnTally:
    tally = tallies.get(column_of(spec))
    if tally is None or not tally.trained:
        raise TrainingError(f"the column {quote(column_of(spec))} has no values in the rows that are trained on")
    return tally


def _add_scaling(record: Spec, tally: ColumnTally) -> None:
    """Add the mean and the scale of a number."""
    if record.keys() >= {"mean", "scale"}:
        return
    if not tally.is_number:
        row = "" if tally.not_a_number is None else f"; that of row {tally.not_a_number} is none"
        raise TrainingError(f"the values of {quote(tally.name)} are not all numbers{row}")
    if tally.is_infinite:
        raise TrainingError(f"the column {quote(tally.name)} has infinite numbers")
    record.setdefault("mean", float(tally.moments.mean[0]))
    record.setdefault("scale", float(tally.moments.scale[0]))


def _add_vector_scaling(record: Spec, tally: ColumnTally, prefix: str, tensors: dict[str, Array]) -> None:
    """Add the size, the means and the scales of a vector."""
    if not tally.is_vector or tally.is_infinite or tally.vector_size != record.get("size", tally.vector_size):
        raise TrainingError(f"the values of {quote(tally.name)} are not all lists of as many finite numbers")
    record["size"] = tally.vector_size
    for name, numbers in (("mean", tally.moments.mean), ("scale", tally.moments.scale)):
        if name not in record:
            record[name], tensors[f"{prefix}_{name}"] = f"{prefix}_{name}", np.asarray(numbers, np.float64)


def _list_values(spec: Spec, tally: ColumnTally) -> list[Any]:
    """Return the values of a category: texts, whole numbers or booleans."""
    name = quote(tally.name)
    if not tally.is_exact or len(tally.values) > LIST_MAX:
        raise TrainingError(
            f"the column {name} has more than {DISTINCT_MAX} values; give the field bits in their place"
        )
    counts = tally.values
    if all(isinstance(value, float) for value in counts):
        if not all(value.is_integer() for value in counts):
            raise TrainingError(f"the column {name} has numbers that are not whole, which are no categories")
        counts = {int(value): count for value, count in counts.items()}
    elif tally.kinds == {"cell"} and all(map(WHOLE.fullmatch, counts)):
        counts = {int(value): count for value, count in counts.items()}
    frequent = [value for value, count in counts.items() if count >= ROWS_OF_A_VALUE]
    return sorted(frequent if frequent and spec.get("unknown") == "other" else counts)


def _add_terms(record: Spec, counts: TermCounts, prefix: str, tensors: dict[str, Array]) -> None:
    """Add the terms of a text or a bag, and the factors of its columns."""
    if "terms" in record or "bits" in record:
        raise TrainingError(f"the field {quote(record['name'])} has terms or bits of its own; give it the factors too")
    terms, rows = counts.list_terms()
    if not terms:
        raise TrainingError(f"the column {quote(record['name'])} has no terms in the rows that are trained on")
    text, ends = pack_terms(terms)
    record["terms"] = {"bytes": f"{prefix}_bytes", "ends": f"{prefix}_ends"}
    tensors |= {f"{prefix}_bytes": text, f"{prefix}_ends": ends}
    if record.get("idf") is True:
        record["idf"], tensors[f"{prefix}_idf"] = f"{prefix}_idf", inverse_frequencies(rows, counts.rows)
