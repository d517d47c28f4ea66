"""The columns of all fields: how many there are, and where each field's block is.

Everything here is arithmetic on the manifest and on the shapes of its tensors, so nothing is allocated for fields that
are refused.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from service.fields.field_records import FieldRecord
from service.fields.field_types import Sizes
from service.fields.refusals import quote

# Up to so many columns a row becomes dense: a matrix of 1,000 rows in float32 then takes 16 MiB at most.
DENSE_COLUMNS_MAX: Final = 4096


class FieldLimits(NamedTuple):
    """Limits of the fields of a model and of its rows.

    Attributes:
        fields_max: Fields of a model.
        columns_max: Columns of all fields together.
        entries_max: Entries of a row: columns that are not 0, and n-grams of a text before they are added.
    """

    fields_max: int = 1024
    columns_max: int = 1 << 24
    entries_max: int = 65_536


class ColumnBlock(NamedTuple):
    """The columns of one field, from `start` to before `end`."""

    start: int
    end: int


def lay_out_columns(fields: Sequence[FieldRecord], sizes: Sizes, limits: FieldLimits) -> tuple[ColumnBlock, ...]:
    """Return the block of each field, in order.

    Args:
        fields: The fields of a manifest.
        sizes: The shapes of the artifact's tensors by name, as its header gives them.
        limits: The limits of the fields.

    Raises:
        ValueError: A tensor is missing or has another shape, or a limit is exceeded; the message is one sentence.
    """
    if len(fields) > limits.fields_max:
        raise ValueError(f"there are {len(fields)} fields, and the limit is {limits.fields_max}")
    blocks, end = [], 0
    for field in fields:
        _check_sizes(field, sizes)
        count = field.count_columns(sizes)
        if not count:
            raise ValueError(f"the field {quote(field.name)} has no columns")
        start, end = end, end + count
        if end > limits.columns_max:
            raise ValueError(f"the fields have more than {limits.columns_max} columns, which is the limit")
        blocks.append(ColumnBlock(start, end))
    return tuple(blocks)


def _check_sizes(field: FieldRecord, sizes: Sizes) -> None:
    """Raise ValueError if a tensor of a field is missing or has another shape."""
    for name, spec in field.tensor_specs({}).items():
        if name not in sizes:
            raise ValueError(f"a tensor of the field {quote(field.name)} is missing")
        if len(sizes[name]) != len(spec.shape):
            raise ValueError(f"each tensor of the field {quote(field.name)} must have one dimension")
    for name, spec in field.tensor_specs(sizes).items():
        if any(needed not in {None, given} for needed, given in zip(spec.shape, sizes[name], strict=True)):
            raise ValueError(f"a tensor of the field {quote(field.name)} must have one number for each column")


def is_dense(fields: Sequence[FieldRecord], sizes: Sizes) -> bool:
    """Return whether rows become dense: at most 4,096 columns, and none of them hashed.

    Args:
        fields: The fields of a manifest.
        sizes: The shapes of the artifact's tensors by name; `lay_out_columns` has checked them.
    """
    hashed = any(field.is_hashed for field in fields)
    return not hashed and sum(field.count_columns(sizes) for field in fields) <= DENSE_COLUMNS_MAX
