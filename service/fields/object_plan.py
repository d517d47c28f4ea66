"""The plan by which machine code encodes one row from the text of its object; kernels/plan_cells.py has the format."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.fields.field_list import group_by_value
from service.fields.field_records import (
    BooleanField,
    CategoryField,
    CrossField,
    FieldRecord,
    NumberField,
    VectorField,
)
from service.fields.field_types import TermField
from service.fields.kernels import plan_cells as cell
from service.fields.kernels.json_text import BYTES_OFFSET
from service.fields.kernels.object_row import encode_object
from service.fields.kernels.term_kernels import BUILT, build_term_table
from service.fields.name_encoders import BagEncoder, TextEncoder, name_category
from service.fields.row_encoder import EncodedRows, RowEncoder
from service.fields.scalar_encoders import VectorEncoder
from service.fields.term_table import count_slots, pack_names
from service.fields.text_records import BagField, TextField
from service.softmax.arrays import Doubles, Integers
from service.softmax.kernels.single_sparse import ENTRIES
from service.softmax.sparse_rows import SparseRows

# Characters of one text; with them and ENTRIES, of a row before they are added, the buffers take 200 KB. The general
# encoder reads a row with more.
CHARACTERS: Final = 8192

KINDS: Final[dict[type[FieldRecord], int]] = {
    NumberField: cell.NUMBER,
    BooleanField: cell.BOOLEAN,
    CategoryField: cell.CATEGORY,
    TextField: cell.TEXT_FIELD,
    BagField: cell.BAG,
    VectorField: cell.VECTOR,
    CrossField: cell.CROSS,
}
ACCEPTED: Final = {str: cell.ACCEPTS_TEXT, int: cell.ACCEPTS_NUMBER, bool: cell.ACCEPTS_BOOLEAN}
ACCEPTS_ALL: Final = sum(ACCEPTED.values())

Arrays = Mapping[str, NDArray[Any]]


class CrowdedNamesError(ValueError):
    """Names that share too many slots of a table, which are found by the general encoder alone."""


class ObjectPlan:
    """Encodes rows of one model, one at a time. Use it on one thread only, because its buffers are shared by calls.

    Args:
        encoder: The general encoder of the model's rows.

    Attributes:
        address: The address of the plan, for kernels.
        missing: (F,) int64, how many values of each field of the last row were missing.
        unknown: (F,) int64, how many were unknown.
        after: Where the last list that was encoded ends in its text.

    Raises:
        CrowdedNamesError: The names of fields or categories were made to collide.
    """

    def __init__(self, encoder: RowEncoder) -> None:
        F = len(encoder.fields)
        self._encoder: Final = encoder  # the plan has addresses of its tables
        numbers = {field.name: f for f, field in enumerate(encoder.fields)}
        groups = group_by_value(encoder.fields).values()
        # The numbers of the fields that read each value, in the order of the names of a row.
        self._readers: Final = [[numbers[field.name] for field in group] for group in groups]
        self._field_arrays: Final = [self._make_field_arrays(field) for field in encoder.fields]
        self._arrays: Final = {**self._make_inputs(), **_make_buffers(F, min(ENTRIES, encoder.entries_max))}
        self.missing: Final[Integers] = self._arrays["missing"]
        self.unknown: Final[Integers] = self._arrays["unknown"]
        self.after = 0
        self._columns: Final = self._arrays["row_columns"]
        self._singles: Final = self._arrays["row_singles"]
        self._cells: Final = np.zeros(cell.PLAN_CELLS, np.int64)
        self._cells[: cell.N_FIELDS] = _describe(cell.PLAN_ARRAYS, self._arrays)
        self._cells[cell.N_FIELDS] = F
        self.address: Final[int] = self._cells.ctypes.data

    def encode(self, text: bytes, start: int) -> EncodedRows | None:
        """Return the row in a list of one object, `[{"age": 41}]`; None if unsure.

        Args:
            text: A JSON text.
            start: Where the list begins.
        """
        count = self._scan(text, start)
        if count < 0:
            return None
        columns, values = self._arrays["row_columns"][:count], self._arrays["row_values"][:count]
        row = SparseRows(np.array([count], np.int64), columns.copy(), values.copy())
        return EncodedRows(row, self.missing.copy(), self.unknown.copy())

    def encode_bytes(self, text: bytes, start: int) -> tuple[int, bytes, bytes] | None:
        """Return the number of entries of a row, their columns as bytes of int32, and their values of float32.

        The arguments are those of `encode`. None if unsure, or if a value is not finite in float32.
        """
        count = self._scan(text, start)
        if count < 0 or not self._cells[cell.FINITE]:
            return None
        return count, self._columns[:count].tobytes(), self._singles[:count].tobytes()

    @property
    def has_counts(self) -> bool:
        """Whether a value of the last row was missing or unknown."""
        return bool(self._cells[cell.COUNTED])

    def _scan(self, text: bytes, start: int) -> int:
        """Encode the row in the buffers; return the number of its entries, or a negative number if unsure."""
        address = id(text) + BYTES_OFFSET
        count: int = encode_object(address + start, self.address)
        self.after = int(self._cells[cell.AFTER]) - address
        return count

    def _make_inputs(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that kernels read."""
        encoder = self._encoder
        fields = np.zeros((len(encoder.fields), cell.FIELD_CELLS), np.int64)
        numbers = np.zeros((len(encoder.fields), cell.NUMBERS_OF_A_FIELD))
        absent_columns: list[Integers] = [np.empty(0, np.int64)]
        absent_values: list[Doubles] = [np.empty(0)]
        for f, field in enumerate(encoder.fields):
            fields[f, : cell.KIND] = _describe(cell.FIELD_ARRAYS, self._field_arrays[f])
            options = {**self._list_options(field), "start": encoder.blocks[f].start}
            options["absent_first"] = sum(map(len, absent_columns))
            options["absent"] = self._keep_absent(field, absent_columns, absent_values)
            fields[f, cell.KIND :] = [int(options.get(name, 0)) for name in cell.FIELD_OPTIONS]
            numbers[f] = _list_numbers(field)
        for readers in self._readers:
            fields[readers, cell.NEXT_FIELD] = [*readers[1:], -1]
        name_text, name_ends, name_slots = _make_table([name.encode() for name in encoder.names])
        return {
            "fields": fields,
            "numbers": numbers,
            "first_fields": np.array([readers[0] for readers in self._readers], np.int64),
            "name_text": name_text,
            "name_ends": name_ends,
            "name_slots": name_slots,
            "absent_columns": np.concatenate(absent_columns),
            "absent_values": np.concatenate(absent_values),
        }

    def _keep_absent(self, field: FieldRecord, columns: list[Integers], values: list[Doubles]) -> int:
        """Append the entries of a missing value of a field; return how many, or -1 if it is refused."""
        if isinstance(field, CrossField):
            return 0
        encoder = self._encoder.encoders[field.name]
        if encoder.refuses_missing:
            return -1
        entries = encoder.encode([None]).entries
        columns.append(entries.columns)
        values.append(entries.values)
        return len(entries.columns)

    def _make_field_arrays(self, field: FieldRecord) -> Arrays:
        """Return the arrays of one field by their names in FIELD_ARRAYS."""
        found: dict[str, NDArray[Any]] = {}
        encoder = None if isinstance(field, CrossField) else self._encoder.encoders[field.name]
        if isinstance(field, TermField) and field.name in self._encoder.terms:
            table = self._encoder.terms[field.name]
            found |= {"term_text": table.text, "term_ends": table.ends, "term_slots": table.slots}
        elif isinstance(field, CategoryField) and field.values is not None:
            text, ends, slots = _make_table([name_category(value) for value in field.values])
            found |= {"term_text": text, "term_ends": ends, "term_slots": slots}
        if isinstance(encoder, TextEncoder):
            table = encoder.analyzer.stop_table
            found |= {"stop_text": table.text, "stop_ends": table.ends, "stop_slots": table.slots}
            found["idf"] = encoder.weighting.idf
        if isinstance(encoder, VectorEncoder) and isinstance(field, VectorField):
            found |= {
                "means": np.zeros(field.size) + encoder.mean,
                "scales": np.zeros(field.size) + encoder.scale,
            }
        return found

    def _list_options(self, field: FieldRecord) -> dict[str, int]:
        """Return the options of one field by their names in FIELD_OPTIONS; those that are 0 may be left out."""
        n_values = self._encoder.count_values(field)
        options = {"kind": KINDS[type(field)], "other": n_values if field.has_other else -1}
        options["refuses_unknown"] = getattr(field, "unknown", None) == "refuse"
        if field.is_hashed:
            options["width"] = n_values
            options["vw"] = getattr(field, "hashing", None) == "vw"
            options |= {"seed": getattr(field, "seed", 0), "signed": getattr(field, "signed", False)}
        encoder = None if isinstance(field, CrossField) else self._encoder.encoders[field.name]
        if isinstance(encoder, TextEncoder | BagEncoder):
            options |= {"mode": encoder.weighting.mode, "norm": encoder.weighting.norm}
        if isinstance(field, TextField) and isinstance(encoder, TextEncoder):
            analyzer = encoder.analyzer
            options |= {"form": analyzer.form, "shortest": analyzer.shortest, "longest": analyzer.longest}
            options |= {"letters_min": analyzer.letters_min, "lowercase": analyzer.lowercase}
        elif isinstance(field, CategoryField):
            kinds = set(map(type, field.values or ()))
            options["accepts"] = sum(ACCEPTED[kind] for kind in kinds) if kinds else ACCEPTS_ALL
        elif isinstance(field, VectorField):
            options["size"] = field.size
        elif isinstance(field, CrossField):
            numbers = {one.name: f for f, one in enumerate(self._encoder.fields)}
            parts = [*(numbers[name] for name in field.fields), -1]
            options |= {f"part_{i + 1}": parts[i] for i in range(3)}
        return options


def _make_buffers(n_fields: int, entries: int) -> Arrays:
    """Return the arrays that kernels write."""
    integers = {name: np.zeros(entries, np.int64) for name in ("columns", "spare_columns", "starts", "stops")}
    by_field = {name: np.zeros(n_fields, np.int64) for name in ("firsts", "counts", "missing", "unknown")}
    return {
        **integers,
        **by_field,
        "values": np.zeros(entries),
        "spare_values": np.zeros(entries),
        "text": np.zeros(CHARACTERS, np.uint8),
        "borders": np.zeros(CHARACTERS + 1, np.int64),
        "row_columns": np.zeros(entries, np.int32),
        "row_values": np.zeros(entries),
        "row_singles": np.zeros(entries, np.float32),
    }


def _make_table(names: list[bytes]) -> tuple[NDArray[np.uint8], Integers, NDArray[np.int32]]:
    """Return the table of distinct names (kernels/term_kernels.py): text, ends and slots."""
    text, _, ends = pack_names(names)
    slots = np.zeros(count_slots(len(names)), np.int32)
    if build_term_table(text, ends, slots) != BUILT:
        raise CrowdedNamesError("the names have too many equal hashes")
    return text, ends, slots


def _describe(names: tuple[str, ...], arrays: Arrays) -> list[int]:
    """Return the address and the length of each array; 0 for those that are not there."""
    pairs = [(arrays[name].ctypes.data, len(arrays[name])) if name in arrays else (0, 0) for name in names]
    return [number for pair in pairs for number in pair]


def _list_numbers(field: FieldRecord) -> tuple[float, float, float]:
    """Return the mean, the scale and the limit of the cut of a number or a vector."""
    clip = getattr(field, "clip", None)
    limit = np.inf if clip is None else clip
    return (field.mean, field.scale, limit) if isinstance(field, NumberField) else (0.0, 1.0, limit)
