"""Make the encoder of each field from its record and the tensors of its artifact."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits
from service.fields.entries import FieldEncoder
from service.fields.field_records import (
    BooleanField,
    CategoryField,
    CrossField,
    FieldRecord,
    NumberField,
    VectorField,
)
from service.fields.field_types import TermField
from service.fields.name_encoders import NO_IDF, BagEncoder, HashedCategoryEncoder, NameColumns, TextEncoder
from service.fields.refusals import quote
from service.fields.scalar_encoders import BooleanEncoder, CategoryEncoder, NumberEncoder, VectorEncoder
from service.fields.term_table import TermTable
from service.fields.text_records import BagField, TextField
from service.softmax.arrays import Doubles

Tensors = Mapping[str, NDArray[Any]]
"""The tensors of an artifact by name."""


def check_tensors(fields: tuple[FieldRecord, ...], tensors: Tensors) -> None:
    """Raise ArtifactError if a tensor of a field has another dtype; `lay_out_columns` has checked the shapes."""
    for field in fields:
        for name, spec in field.tensor_specs({}).items():
            if tensors[name].dtype != spec.dtype:
                raise ArtifactError(f"a tensor of the field {quote(field.name)} must be {spec.dtype}")


def make_term_table(field: FieldRecord, tensors: Tensors) -> TermTable | None:
    """Return the terms of a field, or None if its columns are no terms."""
    if not isinstance(field, TermField) or field.terms is None:
        return None
    return TermTable(field.name, field.terms, tensors)


def make_encoder(
    field: FieldRecord, terms: TermTable | None, n_values: int, tensors: Tensors, limits: FieldLimits
) -> FieldEncoder:
    """Return the encoder of a field that is not a cross.

    Args:
        field: The field.
        terms: Its terms, or None.
        n_values: Its columns without `other` and `missing`.
        tensors: The tensors of the artifact.
        limits: The limits of a row.

    Raises:
        ArtifactError: A tensor has numbers that cannot be used.
    """
    match field:
        case NumberField():
            return NumberEncoder(field)
        case BooleanField():
            return BooleanEncoder(field)
        case CategoryField():
            return HashedCategoryEncoder(field, n_values) if field.is_hashed else CategoryEncoder(field)
        case TextField():
            idf = NO_IDF if field.idf is None else _read_numbers(field, field.idf, tensors)
            return TextEncoder(field, n_values, NameColumns(field, terms), idf, limits)
        case BagField():
            return BagEncoder(field, n_values, NameColumns(field, terms), limits)
        case VectorField():
            mean = 0.0 if field.mean is None else _read_numbers(field, field.mean, tensors)
            scale = 1.0 if field.scale is None else _read_numbers(field, field.scale, tensors)
            if np.min(scale) <= 0:
                raise ArtifactError(f"the scale of the field {quote(field.name)} must be positive")
            return VectorEncoder(field, mean, scale)
        case CrossField():
            raise TypeError("a cross has an encoder of its own")


def _read_numbers(field: FieldRecord, numbers: tuple[float, ...] | str, tensors: Tensors) -> Doubles:
    """Return numbers (columns,) float64 of a list in the manifest, or of a tensor.

    Raises:
        ArtifactError: One of them is not finite.
    """
    array = np.ascontiguousarray(tensors[numbers] if isinstance(numbers, str) else np.array(numbers, np.float64))
    if not np.isfinite(array).all():
        raise ArtifactError(f"a tensor of the field {quote(field.name)} has a number that is not finite")
    return array
