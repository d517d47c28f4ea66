"""Print the fields of a model as a table: the field of each column, or the reason to leave it out."""

import sys
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.train.chosen_fields import ChosenField, Spec
from service.train.class_labels import Classes
from service.train.column_tally import ColumnTally
from service.train.training import PreparedTable

# Options of a field that a reader knows from its kind, or that other columns of the table have.
HIDDEN_OPTIONS: Final = {"name", "kind", "clip"}
CLASSES_SHOWN: Final = 8
FILE_WIDTH: Final = 160
SHOWN_TEXTS: Final = {"missing", "unknown", "norm"}


def print_fields(prepared: PreparedTable) -> None:
    """Print a table with a line for each column of the file but those of labels and weights."""
    survey = prepared.survey
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("column", "field", "values", "gaps", "options and notes"):
        table.add_column(title, justify="right" if title in {"values", "gaps"} else "left")
    for column in prepared.chosen:
        tally = survey.tallies.get(column.name)
        kind = Text("left out", "dim") if column.spec is None else Text(column.spec["kind"])
        counts = ("", "") if tally is None else (count_values(tally), f"{tally.gaps:,}" if tally.gaps else "")
        table.add_row(Text(column.name), kind, *counts, Text(describe_field(column), "dim"))
    lines = [
        f"{survey.rows:,} rows, {survey.held_out:,} of them held out{_count_unlabeled(survey.unlabeled)}",
        f"{len(survey.classes.names)} classes, {survey.classes.head}: {_list_classes(survey.classes)}",
        "",
    ]
    # Rich would wrap the lines of a file or a pipe as on a narrow terminal.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    with console.capture() as captured:
        console.print(table)
    lines += [line.rstrip() for line in captured.get().splitlines()]
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def count_values(tally: ColumnTally) -> str:
    """Return the number of distinct values as a text, if they were counted."""
    if not tally.values:
        return ""
    return f"{len(tally.values):,}" if tally.is_exact else f"> {len(tally.values) - 1:,}"


def describe_field(column: ChosenField) -> str:
    """Return the options of a field, and the note of its choice."""
    parts = [] if column.spec is None else [describe_options(column.spec)]
    return "; ".join(part for part in (*parts, column.note) if part)


def describe_options(spec: Spec) -> str:
    """Return the options of a field in words."""
    parts = []
    for name, value in spec.items():
        if name in HIDDEN_OPTIONS or (isinstance(value, dict | str) and name not in SHOWN_TEXTS):
            continue
        if value is True:
            parts.append(name)
        elif isinstance(value, list):
            parts.append(f"{name} {value[0]} to {value[1]}" if name in {"words", "chars"} else f"{len(value)} {name}")
        elif isinstance(value, float):
            parts.append(f"{name} {value:.6g}")
        else:
            parts.append(f"{name} {value}")
    return ", ".join(parts)


def _list_classes(classes: Classes) -> str:
    """Return the names of the first classes, with their rows."""
    names = [f"{name} {count:,}" for name, count in zip(classes.names, classes.counts, strict=True)]
    more = len(names) - CLASSES_SHOWN
    return ", ".join(names[:CLASSES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _count_unlabeled(count: int) -> str:
    return f"; {count:,} without a label are left out" if count else ""
