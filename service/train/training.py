"""Train a model on a file of rows: the passes over the file, the fits, and the artifact of the best one."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from service.errors import TrainingError
from service.fields.column_blocks import FieldLimits, is_dense
from service.fields.field_records import CrossField
from service.fields.name_encoders import TextEncoder
from service.fields.refusals import quote
from service.fields.row_encoder import RowEncoder
from service.softmax.arrays import Doubles
from service.softmax.balanced_blocks import BalancedBlocks, balance_factors
from service.softmax.block_sums import sum_labels
from service.softmax.fitting import Fit, fit, fit_path
from service.softmax.lbfgs import Report
from service.softmax.occurring_columns import ColumnRange, CompactBlocks
from service.softmax.row_blocks import RowBlocks
from service.softmax.sparse_rows import SparseRows
from service.softmax.sparse_weights import SPARSE_WEIGHTS_MAX, padded_width
from service.train.chosen_fields import ChosenField, Spec, choose_field
from service.train.class_labels import LabelReader
from service.train.complete_fields import (
    FIELDS,
    CompleteFields,
    column_of,
    complete_fields,
    needs_terms,
    needs_values,
    parse_specs,
)
from service.train.data_table import DataTable
from service.train.field_values import read_values
from service.train.held_out_rows import HeldOutRows
from service.train.open_table import open_table
from service.train.row_encoding import PackedTable, TableEncoder
from service.train.table_survey import Survey, count_rows_of, survey_table
from service.train.term_counts import TermCounts
from service.train.training_options import TrainingOptions

# Two threads add blocks; more gain little, because memory feeds them.
THREADS: Final = 2


class TrainingReport(Protocol):
    """Shows how far training is."""

    def begin(self, action: str, total: int | None) -> Callable[[int], None]:
        """Begin a pass; return a function that receives how many rows it has read.

        Args:
            action: What the pass does.
            total: The number of rows, or None if it is unknown.
        """

    def fit(self, C: float) -> Report:
        """Begin a fit; return a function that receives each step, as `fit` of softmax/fitting.py calls it."""


@dataclass(frozen=True, eq=False)
class PreparedTable:
    """A file of which pass 1 has counted the columns.

    Attributes:
        table: The file.
        reader: Reads the labels.
        held_out: Tells which rows are held out.
        survey: The counts.
        chosen: The field of each column, or the reason to leave it out.
    """

    table: DataTable
    reader: LabelReader
    held_out: HeldOutRows
    survey: Survey
    chosen: tuple[ChosenField, ...]

    @property
    def specs(self) -> list[Spec]:
        """The fields, without their statistics."""
        return [column.spec for column in self.chosen if column.spec is not None]

    @property
    def left_out(self) -> dict[str, str]:
        """The columns that are left out, with the reason."""
        return {column.name: column.note for column in self.chosen if column.spec is None}


@dataclass(frozen=True, eq=False)
class FittedModel:
    """The fits of a model, and what they were made of.

    Attributes:
        encoder: Encodes its rows.
        fields: Its fields with their statistics.
        rows: The encoded rows.
        fits: A fit for each value of C, with its mean loss over held-out rows; None without such rows.
        best: The fit with the least loss.
        is_dense: Whether its rows are a matrix.
        support: (N,) float64, the sum of the squares of each column over the rows that are trained on.
    """

    encoder: RowEncoder
    fields: CompleteFields
    rows: PackedTable
    fits: tuple[tuple[Fit, float | None], ...]
    best: Fit
    is_dense: bool
    support: Doubles


def prepare_table(options: TrainingOptions, given: object | None, report: TrainingReport) -> PreparedTable:
    """Read a file once, and choose the fields.

    Args:
        options: The options.
        given: The content of a file of fields, or None to choose them.
        report: Shows the progress.

    Raises:
        TrainingError: The file or an option cannot be used.
        OSError: The disk failed.
    """
    specs = None
    if given is not None:
        specs = parse_specs(given)[0]
        _check_given(specs, options)
    if options.weight == options.label:
        raise TrainingError("the column of labels cannot have the weights")
    table = open_table(options.data, options.delimiter)
    reader = LabelReader(options.label, options.separator)
    n_rows = count_rows_of(table, reader) if options.hold_out == "last" else table.n_rows
    held_out = HeldOutRows(options.hold_out, options.seed, n_rows)
    survey = survey_table(
        table,
        reader,
        held_out,
        options.weight,
        report.begin("reading columns", n_rows),
        counted=[column_of(spec) for spec in specs or () if needs_values(spec)],
        names=None if specs is None else [column_of(spec) for spec in specs if spec["kind"] != "cross"],
    )
    if specs is None:
        chosen = tuple(map(choose_field, survey.tallies.values()))
    else:
        chosen = tuple(ChosenField(spec["name"], spec) for spec in specs)
    if all(column.spec is None for column in chosen):
        raise TrainingError("no column can be a field; name some with --fields")
    return PreparedTable(table, reader, held_out, survey, chosen)


def fit_model(
    prepared: PreparedTable, options: TrainingOptions, limits: FieldLimits, report: TrainingReport
) -> FittedModel:
    """Encode the rows of a file, and fit a model for each value of C.

    Args:
        prepared: The file after pass 1.
        options: The options.
        limits: The limits of the fields.
        report: Shows the progress.

    Raises:
        TrainingError: A row, a field or an option cannot be used.
        ArtifactError: The fields exceed a limit.
        OSError: The disk failed.
    """
    survey = prepared.survey
    pa.default_memory_pool().release_unused()
    terms = _count_terms(prepared, limits, report)
    fields = complete_fields(prepared.specs, survey.tallies, terms)
    encoder = make_encoder(fields, limits)
    dense = is_dense(encoder.fields, {name: tensor.shape for name, tensor in fields.tensors.items()})
    _check_sizes(encoder, options, survey, dense=dense)
    rows = TableEncoder(
        encoder, prepared.reader, survey.classes, options.weight, prepared.held_out, is_dense=dense
    ).pack(prepared.table, report.begin("encoding rows", survey.rows))
    pa.default_memory_pool().release_unused()
    try:
        fits = _fit_all(rows, options, survey, report, dense=dense)
    except ValueError as error:
        raise TrainingError(f"no model can be fitted: {error}") from None
    best = min(fits, key=lambda one: 0.0 if one[1] is None else one[1])[0]
    return FittedModel(encoder, fields, rows, fits, best, dense, sum_squares(rows.trained))


def make_encoder(fields: CompleteFields, limits: FieldLimits) -> RowEncoder:
    """Return the encoder of fields that are complete.

    Raises:
        ArtifactError: They exceed a limit.
    """
    parse_specs(fields.records)
    return RowEncoder(FIELDS.validate_json(json.dumps(fields.records)), fields.tensors, limits)


def sum_squares(blocks: RowBlocks) -> Doubles:
    """Return the sum of the squares of each column, (N,) float64, added in the order of the rows."""
    total = np.zeros(blocks.n_columns)
    for i in range(blocks.n_blocks):
        rows = blocks.read_block(i).rows
        if isinstance(rows, SparseRows):
            squares = rows.values.astype(np.float64) ** 2
            total += np.bincount(rows.columns, squares, blocks.n_columns)
        else:
            total += np.add.accumulate(rows.astype(np.float64) ** 2, axis=0)[-1]
    return total


def _check_given(specs: Sequence[Spec], options: TrainingOptions) -> None:
    """Raise TrainingError if a field has the labels or the weights."""
    names = [column_of(spec) for spec in specs]
    for name in (options.label, options.weight):
        if name in names:
            raise TrainingError(f"the column {quote(str(name))} has the labels or the weights, and can be no field")


def _check_sizes(encoder: RowEncoder, options: TrainingOptions, survey: Survey, *, dense: bool) -> None:
    """Raise TrainingError if a model of these columns cannot be served."""
    n_logits = 1 if survey.classes.head == "sigmoid" else len(survey.classes.names)
    if options.hidden and not dense:
        raise TrainingError("hidden layers need at most 4,096 columns, none of them hashed; give the fields fewer")
    if not dense and encoder.n_columns * padded_width(n_logits) > SPARSE_WEIGHTS_MAX:
        raise TrainingError(
            f"{encoder.n_columns} columns and {n_logits} classes are more than {SPARSE_WEIGHTS_MAX} weights"
        )


def _count_terms(prepared: PreparedTable, limits: FieldLimits, report: TrainingReport) -> dict[str, TermCounts]:
    """Read a file again, if a field needs terms, and count those of the rows that are trained on."""
    specs = [spec for spec in prepared.specs if needs_terms(spec)]
    counts = {spec["name"]: TermCounts() for spec in specs}
    if not specs:
        return counts
    _, fields = parse_specs(specs)
    encoders = RowEncoder(fields, {}, limits).encoders
    progress = report.begin("counting terms", prepared.survey.rows)
    for block in prepared.table.read_blocks({prepared.reader.column, *map(column_of, specs)}):
        labels = prepared.reader.read(block.columns.get(prepared.reader.column), block.n_rows)
        used = labels.present & ~prepared.held_out.mark(block.first, block.n_rows)
        for spec, field in zip(specs, fields, strict=True):
            encoder, cells = encoders[field.name], block.columns.get(column_of(spec))
            if cells is None or isinstance(field, CrossField):
                continue
            values: Any = read_values(field, cells, block.first, block.n_rows)
            places = [i for i in np.flatnonzero(used).tolist() if values[i] is not None]
            present = [values[i] for i in places]
            if isinstance(encoder, TextEncoder):
                counts[field.name].add_texts(encoder, present, [block.first + i for i in places])
            else:
                counts[field.name].add_bags(present)
        progress(block.first + block.n_rows)
    return counts


def _fit_all(
    rows: PackedTable, options: TrainingOptions, survey: Survey, report: TrainingReport, *, dense: bool
) -> tuple[tuple[Fit, float | None], ...]:
    """Return a fit for each value of C, over all columns, with its loss over held-out rows."""
    blocks: list[RowBlocks] = [rows.trained] if rows.held_out is None else [rows.trained, rows.held_out]
    columns = None
    if not dense:
        columns = ColumnRange.from_blocks(rows.trained)
        blocks = [CompactBlocks(some, columns) for some in blocks]
    head, K = survey.classes.head, len(survey.classes.names)
    if options.balance:
        if head == "multilabel":
            raise TrainingError("--balance is for rows with one label each")
        factors = balance_factors(sum_labels(blocks[0], head, K).classes)
        blocks = [BalancedBlocks(some, factors) for some in blocks]
    more: dict[str, Any] = {"hidden": options.hidden, "seed": options.seed % 2**32, "threads": THREADS}
    fits: list[tuple[Fit, float | None]]
    if len(blocks) > 1:
        trained, held_out = blocks
        fits = [*fit_path(trained, held_out, head, K, options.strengths, report=report.fit, **more)]
    elif len(options.strengths) == 1:
        C = options.strengths[0]
        fits = [(fit(blocks[0], head, K, C, report=report.fit(C), **more), None)]
    else:
        raise TrainingError("no row is held out to compare several values of C; name one with --c")
    return tuple((_spread(one, columns), loss) for one, loss in fits)


def _spread(fitted: Fit, columns: ColumnRange | None) -> Fit:
    """Return a fit over all columns."""
    return fitted if columns is None else replace(fitted, weights=columns.spread_weights(fitted.weights))
