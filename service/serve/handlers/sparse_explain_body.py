"""Parse the bodies of `:explain` for models of sparse rows, and bound what a response may hold.

The columns that a row has are named by its values (fields/entry_names.py), so a request keeps the rows as its body has
them. A response has the columns of each row's `top` alone.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np

from service.errors import UnacceptableError
from service.fields.entry_names import EntryNames
from service.serve.handlers.explain_body import (
    ENTRY_CELLS,
    MATRICES,
    NUMBER_CHARACTERS,
    WIDE_FROM,
    ExplainBody,
    ExplainParser,
)
from service.serve.models.served_model import ServedModel
from service.serve.wire.field_tables import FieldTables
from service.serve.wire.large_matrix import SPLIT
from service.serve.wire.predict_body import find_form
from service.settings import Settings
from service.softmax.sparse_rows import count_rows, sparse_rows

NO_MATRICES: Final = (
    "The matrices of a model of sparse rows would have too many columns; ask :explain for those of a row."
)


class SparseExplainParser(ExplainParser):
    """Parses requests to explain a model whose rows are sparse.

    The event loop explains no row itself: naming the columns of one takes longer than it should.

    Args:
        served: The model.
        settings: The limits.

    Raises:
        TypeError: The rows of the model are not sparse.
    """

    is_linear = True
    inline_rows = 0
    _default_top = WIDE_FROM

    def __init__(self, served: ServedModel, settings: Settings) -> None:
        super().__init__(served, settings)
        if not isinstance(served.tables, FieldTables):
            raise TypeError("the rows of this model have no fields")
        self._tables: Final = served.tables
        model, names = served.sparse_model, EntryNames(served.tables.encoder)
        self._name_cells: Final = names.characters_max // NUMBER_CHARACTERS
        self._column_cells: Final = model.n_logits + model.n_classes
        self._n_logits: Final = model.n_logits

    def check_outputs(self, rows: int, wanted: Collection[str]) -> None:
        """Check whether so many rows of the outputs with these names can be answered; see the base class."""
        if MATRICES.intersection(wanted):
            raise UnacceptableError(NO_MATRICES)
        self._check_cells(rows * len(wanted) * self._served.model.n_classes, 0)

    def _parse_usual(self, body: bytes) -> None:  # the rows alone do not name their columns
        """Return None: the general way keeps the values of the rows."""

    def _list_values(self, members: dict[str, Any]) -> Sequence[object]:
        """Return the rows of a body as objects or lists of values; `convert_rows` has accepted them."""
        form = find_form(members)
        rows = members[form]
        if form == SPLIT:
            columns = rows.get("columns")
            names = self._tables.encoder.names if columns is None else self._tables.name_columns(columns)
            return [dict(zip(names, row, strict=True)) for row in rows["data"]]
        if type(rows) is dict:
            columns = {name: rows[name] for name in self._tables.encoder.names if name in rows}
            return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return rows  # type: ignore[no-any-return]  # a list

    def _count_cells(self, parsed: ExplainBody) -> tuple[int, int]:
        lengths = np.diff(sparse_rows(parsed.X).ends, prepend=0)
        shown = int(np.minimum(lengths, parsed.top).sum())
        per_column = self._column_cells + (parsed.Y is not None) + ENTRY_CELLS + self._name_cells
        computed = self._column_cells + 2 * self._n_logits + self._name_cells  # weights and slopes too
        return count_rows(parsed.X) * self._row_cells + shown * per_column, int(lengths.sum()) * computed
