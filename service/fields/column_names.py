"""The names of columns, as explanations show them.

age              the column of a number or boolean, by the field's name
age=missing      the column `missing` of any kind
country=DE       a category; a boolean or whole number as in JSON
country=other    the column `other`
subject: refund  a term of a text or a bag
vector[3]        a number of a vector, or a hashed column, counted from 0
"""

import json
from collections.abc import Mapping, Sequence

from service.fields.field_records import BooleanField, Category, CategoryField, FieldRecord, NumberField
from service.fields.field_types import TermField, TermTensors


def name_column(field: FieldRecord, column: int, n_values: int, terms: Sequence[str] = ()) -> str:
    """Return the name of a column.

    Args:
        field: The field that has the column.
        column: Its number within the field's block.
        n_values: The columns of the block without `other` and `missing`.
        terms: The terms of a text or a bag, if they are tensors.
    """
    if column >= n_values:
        return f"{field.name}={'other' if field.has_other and column == n_values else 'missing'}"
    if isinstance(field, NumberField | BooleanField):
        return field.name
    if isinstance(field, CategoryField) and field.values is not None:
        return f"{field.name}={show_category(field.values[column])}"
    if isinstance(field, TermField) and field.terms is not None:
        return f"{field.name}: {(terms if isinstance(field.terms, TermTensors) else field.terms)[column]}"
    return f"{field.name}[{column}]"


def list_column_names(fields: Sequence[FieldRecord], terms: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the names of all columns of a model whose rows become dense; no name occurs twice.

    Args:
        fields: The fields of a manifest, none of them hashed.
        terms: By a field's name, its terms if they are tensors.
    """
    names = []
    for field in fields:
        listed = terms.get(field.name, ())
        n_values = len(listed) or field.count_values({})
        count = n_values + field.has_other + field.has_missing
        names += [name_column(field, column, n_values, listed) for column in range(count)]
    return _number_repeated(names)


def show_category(category: Category) -> str:
    """Return a category as a text: a text as it is, a boolean or a whole number as in JSON."""
    return category if isinstance(category, str) else json.dumps(category)


def _number_repeated(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names with a number after each that occurred before, such as a category "other" beside its column."""
    found: dict[str, None] = {}
    for name in names:
        unique, count = name, 1
        while unique in found:
            count += 1
            unique = f"{name} ({count})"
        found[unique] = None
    return tuple(found)
