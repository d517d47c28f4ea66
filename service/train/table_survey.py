"""Pass 1 over a file: what each column holds, and how often each label occurs."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import TrainingError
from service.fields.refusals import quote
from service.train.cell_values import Cells
from service.train.class_labels import Classes, LabelCounts, LabelReader
from service.train.column_tally import ColumnTally
from service.train.data_table import DataBlock, DataTable, read_ahead
from service.train.held_out_rows import HeldOutRows

# A sentence names so many columns at most.
NAMES_SHOWN_MAX: Final = 8
# Two columns are counted at the same time; counting releases the interpreter most of the time.
THREADS: Final = 2

Progress = Callable[[int], None]
"""Reports how many rows a pass has read."""


class Survey(NamedTuple):
    """The result of pass 1.

    Attributes:
        rows: The rows of the file.
        unlabeled: Rows without a label, which are left out.
        held_out: Rows that are held out.
        tallies: The counts of each column but that of the labels and that of the weights.
        classes: The classes.
    """

    rows: int
    unlabeled: int
    held_out: int
    tallies: dict[str, ColumnTally]
    classes: Classes


def survey_table(
    table: DataTable,
    reader: LabelReader,
    held_out: HeldOutRows,
    weight: str | None,
    report: Progress,
    *,
    counted: Collection[str] = (),
    names: Collection[str] | None = None,
) -> Survey:
    """Read all rows once and count.

    Args:
        table: The file.
        reader: Reads the labels.
        held_out: Tells which rows are held out.
        weight: The column of weights, or None.
        report: Reports the rows that were read.
        counted: Columns of numbers whose values are counted, because a field takes them as categories.
        names: The columns that fields need; None for all.

    Raises:
        TrainingError: The file has no rows, lacks a column, or labels cannot be used.
    """
    special = {reader.column} | ({weight} if weight is not None else set())
    wanted = None if names is None else {*names, *special}
    check_names(table.names, special if wanted is None else wanted)
    tallies: dict[str, ColumnTally] = {}
    counts, rows, unlabeled, total_used, held = LabelCounts(), 0, 0, 0, 0
    with ThreadPoolExecutor(THREADS) as pool:
        for block in read_ahead(table.read_blocks(wanted)):
            labels = reader.read(block.columns.get(reader.column), block.n_rows)
            labeled, out = labels.present, held_out.mark(block.first, block.n_rows)
            used = labeled & ~out
            counts.add(labels, used)
            for name in block.columns:
                if name not in special and name not in tallies:
                    tallies[name] = ColumnTally(name, missing=total_used, counts_numbers=name in counted)
            parts = [tuple(tallies.values())[thread::THREADS] for thread in range(THREADS)]
            list(pool.map(_add, parts, repeat(block), repeat(used)))
            rows += block.n_rows
            unlabeled += int(np.count_nonzero(~labeled))
            held += int(np.count_nonzero(labeled & out))
            total_used += int(np.count_nonzero(used))
            report(rows)
    if not rows:
        raise TrainingError("the file has no rows")
    if unlabeled == rows and table.names is None:
        check_names(tuple(tallies), special)
    return Survey(rows, unlabeled, held, tallies, Classes.from_counts(counts, is_multilabel=reader.is_multilabel))


def check_names(known: tuple[str, ...] | None, names: Collection[str]) -> None:
    """Raise TrainingError if a column is not in the file, unless its columns are not known yet."""
    for name in sorted(names):
        if known is not None and name not in known:
            shown = ", ".join(map(quote, known[:NAMES_SHOWN_MAX])) + " and others" * (len(known) > NAMES_SHOWN_MAX)
            raise TrainingError(f"the file has no column {quote(name)}; its columns are {shown}")


def count_rows_of(table: DataTable, reader: LabelReader) -> int:
    """Return the number of rows of a file, which is read if that is needed."""
    if table.n_rows is not None:
        return table.n_rows
    return sum(block.n_rows for block in table.read_blocks({reader.column}))


def _add(tallies: Sequence[ColumnTally], block: DataBlock, used: NDArray[np.bool_]) -> None:
    for tally in tallies:
        tally.add(block.columns.get(tally.name, Cells("empty")), block.first, block.n_rows, used)
