"""The encoder of a cross: products of the entries of other fields, in hashed columns."""

from collections.abc import Sequence
from itertools import product
from typing import Final

import numpy as np

from service.fields.column_blocks import FieldLimits
from service.fields.entries import FieldEntries, check_counts
from service.fields.field_records import CrossField
from service.fields.kernels.cross_kernels import NO_COLUMN, cross_entries
from service.fields.name_encoders import Weighting, collect, merge

COUNTED_MAX: Final = 2.0**53


class CrossEncoder:
    """Encodes a cross.

    Args:
        field: The field.
        limits: The limits of a row.

    Attributes:
        fields: The names of the fields whose entries are multiplied.
    """

    def __init__(self, field: CrossField, limits: FieldLimits) -> None:
        self.fields: Final = field.fields
        self._field: Final = field
        self._limits: Final = limits

    def encode(self, parts: Sequence[FieldEntries]) -> FieldEntries:
        """Return the entries of the cross.

        Args:
            parts: The entries of each of the fields, with the same rows.

        Raises:
            TooLargeError: A row, or all rows together, have too many products.
        """
        return merge(self._multiply([drop_zeros(part) for part in parts]), Weighting())

    def name_entries(self, parts: Sequence[FieldEntries], names: Sequence[Sequence[str]]) -> dict[int, list[str]]:
        """Return the products in each column of the cross of one row.

        Args:
            parts: The entries of each of the fields; none is 0.
            names: The names of these entries.
        """
        return collect(self._multiply(parts).columns, [" * ".join(combination) for combination in product(*names)])

    def _multiply(self, parts: Sequence[FieldEntries]) -> FieldEntries:
        """Return the products of each row, in the order of the entries."""
        n_rows = len(parts[0].counts)
        if len(parts) == 2:  # noqa: PLR2004
            one = FieldEntries(np.ones(n_rows, np.int64), np.full(n_rows, NO_COLUMN), np.ones(n_rows))
            parts = [*parts, one]
        # In float64, because three counts may be too large for an int64; any limit is below the minimum here.
        products = np.prod([part.counts for part in parts], axis=0, dtype=np.float64)
        counts = np.minimum(products, COUNTED_MAX).astype(np.int64)
        total = check_counts(self._field.name, counts, self._limits, "products")
        columns, values = np.empty(total, np.int64), np.empty(total)
        arrays = [array for part in parts for array in part]
        field = self._field
        is_vw = field.hashing == "vw"
        cross_entries(*arrays, field.seed, 1 << field.bits, field.signed, is_vw, columns, values)
        return FieldEntries(counts, columns, values)


def drop_zeros(entries: FieldEntries) -> FieldEntries:
    """Return entries without those that are 0."""
    kept = entries.values != 0
    if kept.all():
        return entries
    rows = np.repeat(np.arange(len(entries.counts)), entries.counts)[kept]
    counts = np.bincount(rows, minlength=len(entries.counts))
    return FieldEntries(counts, entries.columns[kept], entries.values[kept])
