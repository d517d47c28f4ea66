"""The list of the fields of a manifest: what its members must agree on, and which of them read one value of a row.

A field reads the value of its own name, or the one that `source` names. Fields that read one value share its name, its
place in a list of values, and its column in a table. A row has neither the name of a cross nor that of a field with
another source.
"""

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from service.fields.field_records import (
    BooleanField,
    CategoryField,
    CrossField,
    FieldRecord,
    NumberField,
    VectorField,
)
from service.fields.text_records import BagField, TextField

# Above every setting for the number of fields.
FIELDS_MAX: Final = 65_536
ValueRecord = NumberField | BooleanField | CategoryField | TextField | BagField | VectorField
"""A field that reads a value, which all but crosses do."""

CATEGORY_TYPES: Final = frozenset((str, int, bool))


def group_by_value(fields: Sequence[FieldRecord]) -> dict[str, list[ValueRecord]]:
    """Return the fields that read each value of a row, by its name, in the order of the first of them; no crosses."""
    groups: dict[str, list[ValueRecord]] = {}
    for field in fields:
        if not isinstance(field, CrossField):
            groups.setdefault(field.value_name, []).append(field)
    return groups


def list_value_types(fields: Sequence[ValueRecord]) -> frozenset[object]:
    """Return the types of values that all of at least one field accept.

    They are str, bool, int for any number, dict for a bag, and (list, size) for a vector.
    """
    return frozenset.intersection(*map(_list_types, fields))


def _list_types(field: ValueRecord) -> frozenset[object]:
    """Return the types of values that a field accepts."""
    match field:
        case NumberField():
            return frozenset((int,))
        case BooleanField():
            return frozenset((bool,))
        case CategoryField():
            return CATEGORY_TYPES if field.values is None else frozenset(map(type, field.values))
        case TextField():
            return frozenset((str,))
        case VectorField():
            return frozenset(((list, field.size),))
        case BagField():
            return frozenset((dict,))


def _check_fields(fields: tuple[FieldRecord, ...]) -> tuple[FieldRecord, ...]:
    """Return fields whose names and tensors differ, whose crosses are of fields above them, and whose sources fit."""
    above: set[str] = set()
    crosses: set[str] = set()
    tensors: set[str] = set()
    for field in fields:
        if field.name in above or field.name in crosses:
            raise ValueError("the names of the fields must differ from each other")
        specs = field.tensor_specs({})
        if tensors & specs.keys():
            raise ValueError("each tensor of a field must be one of its own")
        tensors |= specs.keys()
        if isinstance(field, CrossField):
            if not above.issuperset(field.fields):
                raise ValueError("a cross is of fields above it that are not crosses themselves")
            crosses.add(field.name)
        else:
            above.add(field.name)
    _check_sources(fields)
    return fields


def _check_sources(fields: tuple[FieldRecord, ...]) -> None:
    """Raise ValueError if a name means two values, or if no type of value suits all fields that read one."""
    groups = group_by_value(fields)
    for field in fields:
        reads = None if isinstance(field, CrossField) else field.value_name
        if field.name in groups and reads != field.name:
            raise ValueError("a source that is the name of a field must be the value that this field reads")
    for group in groups.values():
        if len(group) > 1 and not list_value_types(group):
            raise ValueError("fields of one source must accept a type of value that suits all of them")


Fields = Annotated[
    tuple[FieldRecord, ...],
    Field(min_length=1, max_length=FIELDS_MAX, fail_fast=True),
    AfterValidator(_check_fields),
]
