"""Write the responses of `:explain` for models of sparse rows, and their logits for v2 `/infer`.

A response has the form of explain_format.py in which each row has columns of its own: those of its `top`, in their
order. They are columns that the row has, with the names of what they came from.
"""

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.fields.entry_names import EntryNames
from service.serve.handlers.explain_body import BLOCK_CELLS, ExplainBody
from service.serve.handlers.explain_format import (
    ExplainFormat,
    RowNumbers,
    encode_numbers,
    encode_top,
    part_of_label,
    start_entry,
)
from service.serve.models.served_model import ServedModel
from service.softmax.arrays import Floats, Integers
from service.softmax.sparse_explainer import SparseExplainer, SparseExplanation
from service.softmax.sparse_rows import Rows, sparse_rows


class SparseExplainFormat(ExplainFormat):
    """Writes the explanations of a model whose rows are sparse.

    Args:
        served: The model.

    Raises:
        TypeError: The rows of the model are not sparse.
    """

    def __init__(self, served: ServedModel) -> None:
        super().__init__(served)
        encoder = served.artifact.row_encoder
        if encoder is None:
            raise TypeError("the rows of this model have no fields")
        self._model: Final = served.sparse_model
        self._names: Final = EntryNames(encoder)
        # Columns of rows that are explained at a time: each has a row of weights, contributions, slopes and
        # sensitivities in memory.
        self._block_columns: Final = max(1, BLOCK_CELLS // (3 * self._model.n_logits + self._model.n_classes))

    @cached_property
    def explainer(self) -> SparseExplainer:
        """The explainer of the model; made on first use, in the thread that needs it."""
        return SparseExplainer(self._model)

    def compute_outputs(self, X: Rows, wanted: Collection[str]) -> tuple[Floats, NDArray[np.int64], dict[str, Floats]]:
        """Return probabilities, labels and logits of sparse rows; see the base class."""
        assert set(wanted) <= {"probabilities", "labels", "logits"}  # noqa: S101  # the parser refuses others
        rows = sparse_rows(X)
        P, labels = self._model.classify(rows)
        return P, np.array(labels), {"logits": self._model.uncalibrated_logits(rows)}

    @cached_property
    def _bias(self) -> bytes:
        return encode_numbers(self.explainer.bias)

    def _encode_rows(self, parsed: ExplainBody) -> Iterator[bytes]:
        rows, Y = sparse_rows(parsed.X), parsed.Y
        for part in split_rows(rows.ends, self._block_columns):
            found = self.explainer.explain(rows.slice_rows(part.start, part.stop), None if Y is None else Y[part])
            wide = dict(zip(found.over.tolist(), range(len(found.over)), strict=True))
            for i, values in enumerate(parsed.values[part]):
                P, label = found.probabilities[i], self._find_label(found.labels, found.probabilities, i)
                source, at = (found, i) if i not in wide or found.exact is None else (found.exact, wide[i])
                names = self._names.name_entries(values)
                yield self._encode_row(label, P, *_choose_columns(source, at, names, label, len(P), parsed.top))


def split_rows(ends: Integers, columns_max: int) -> Iterator[slice]:
    """Yield blocks of rows with at most so many columns together, or of one row with more."""
    first = 0
    while first < len(ends):
        start = ends[first - 1] if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, start + columns_max, "right")))
        yield slice(first, stop)
        first = stop


def _choose_columns(  # noqa: PLR0917  # the parts of one row
    found: SparseExplanation, row: int, names: list[str], label: int, n_classes: int, top: int
) -> tuple[RowNumbers, bytes]:
    """Return the numbers of a row in its top columns, and the entries of its `top`."""
    entries = found.entries_of(row)
    columns, C, S = found.columns[entries].tolist(), found.contributions[entries].T, found.sensitivities[entries].T
    part = part_of_label(C, label, n_classes)
    order = np.argsort(-np.abs(part), kind="stable")[:top]
    starts = [start_entry(names[j], columns[j]) for j in order.tolist()]
    loss = None if found.losses is None else float(found.losses[row])
    gradient = None if found.loss_gradients is None else found.loss_gradients[entries]
    numbers = RowNumbers(found.logits[row], C, S, loss, gradient)
    return numbers.take(order), encode_top(starts, part[order], S[label][order])
