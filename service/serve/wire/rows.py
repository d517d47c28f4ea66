"""Parse the rows of prediction bodies: JSON bytes to arrays.

Three parsers share one grammar (json_grammar.py) and took, per number:

    orjson       31 ns   makes Python objects, decides every doubtful case, and words every error
    row_scanner   8 ns   reads the usual prediction body of short numbers in one pass
    pysimdjson   13 ns   copies the numbers of a large regular matrix into a buffer

The faster parsers return None for any body that they are not sure of, and orjson then reads it. A property test
asserts that all three agree on every body, to the bit. base64_rows.py has a parser of its own for rows in base64.

A number is converted from decimal to float64 and then to the model's dtype. The model rejects values that are not
finite afterwards.
"""

import struct
import sys
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson

from service.errors import UnacceptableError
from service.serve.wire.base64_rows import parse_base64
from service.serve.wire.json_grammar import (
    BRACE,
    BRACKET,
    NUMBER_TYPES,
    QUOTE,
    check_row_count,
    containers_max,
    count_lists,
    known_fields,
    measure_document,
    parse_object,
    quote_name,
)
from service.serve.wire.row_scanner import scan_instances
from service.softmax.arrays import Floats

try:
    import simdjson
except ImportError:  # there is no wheel for this Python; the other parsers read everything
    simdjson = None  # type: ignore[assignment]


# Below this size, making Python objects costs no more than asking for a buffer (measured with rows of 4 to 64 numbers).
SIMDJSON_BYTES_MIN: Final = 2048
FIELDS: Final = ("instances", "parameters", "signature_name")


class RowParser:
    """Parses the rows of one model. Use it on the event loop's thread only, because its buffers are shared by calls.

    Args:
        n_features: Numbers in a row, N.
        dtype: The model's dtype.
        rows_max: The limit of rows of a request.
        depth_max: The limit of nesting of a body.
    """

    def __init__(self, n_features: int, dtype: np.dtype[np.floating[Any]], rows_max: int, depth_max: int) -> None:
        self.n_features = n_features
        self.dtype = dtype
        self.rows_max = rows_max
        self.depth_max = depth_max
        self._packer = struct.Struct(f"={n_features}{dtype.char}")
        self._single = np.empty((1, n_features), dtype)
        self._single_bytes = memoryview(self._single.data).cast("B")
        self._native = dtype.newbyteorder("<").str if sys.byteorder == "little" else ""
        self._parser: Any = simdjson.Parser() if simdjson is not None else None

    def parse_instances(self, body: bytes) -> Floats:
        """Parse a body `{"instances": [[...], ...]}`.

        Returns:
            X (B, N) in the model's dtype. If B is 1, X is a buffer that the next call overwrites.

        Raises:
            MalformedError: The body cannot be parsed.
            UnacceptableError: The body has no rows of this model.
            TooLargeError: There are more rows than the limit.
        """
        X = self.parse_usual(body)
        if X is None:
            X = self.convert_rows(get_instances(parse_object(body, self.depth_max, self.rows_max)))
        return X

    def parse_usual(self, body: bytes) -> Floats | None:
        """Parse a body with nothing but instances as `parse_instances` does; return None if unsure."""
        X = self._scan(body)
        if X is not None:
            return X
        if len(body) >= SIMDJSON_BYTES_MIN:
            X = self._parse_matrix(body)
        elif body.count(b'"') == 2:  # noqa: PLR2004  # one key, so no key is repeated and there is no other field
            X = self._parse_row(body)
        return self._parse_base64(body) if X is None else X

    def _scan(self, body: bytes) -> Floats | None:
        """Return X (B, N) of a usual body with short numbers, or None if the scanner is unsure."""
        if scan_instances(body, self._single):
            return self._single
        # A number and its separator take at least two bytes.
        rows = min(len(body) // (2 * self.n_features), self.rows_max + 1)
        if rows <= 1:
            return None
        X = np.empty((rows, self.n_features), self.dtype)
        count = scan_instances(body, X)
        check_row_count(count, self.rows_max)
        return X[:count] if count else None

    def _parse_row(self, body: bytes) -> Floats | None:
        """Return the row of a small usual body, or None; the general parser then finds the error."""
        try:
            (row,) = orjson.loads(body)["instances"]
        except (KeyError, TypeError, ValueError):
            return None
        return self.pack_row(row)

    def _parse_base64(self, body: bytes) -> Floats | None:
        """Return X (B, N) of a usual body with rows in base64, or None if unsure."""
        parsed = parse_base64(body, self.n_features, self.rows_max)
        return None if parsed is None else self.convert_binary(*parsed)

    def _parse_matrix(self, body: bytes) -> Floats | None:
        """Return X (B, N) of a large usual body, or None if unsure.

        The parser's buffer flattens nested and ragged lists and ignores repeated keys. So the text must have one string
        (the key), one brace, one opening bracket more than rows, and N elements in every row.
        """
        if self._parser is None or body[:1] == b"\xef":
            return None
        text = np.frombuffer(body, np.uint8)
        if np.count_nonzero(text == QUOTE) != 2 or np.count_nonzero(text == BRACE) != 1:  # noqa: PLR2004
            return None
        opened = np.count_nonzero(text == BRACKET)
        if opened > self.rows_max + 1:
            return None
        try:
            rows = self._parser.parse(body)["instances"]
            if opened != len(rows) + 1 or set(map(len, rows)) != {self.n_features}:
                return None
            flat = np.frombuffer(rows.as_buffer(of_type="d"), np.float64)
        except (ValueError, TypeError, KeyError, RuntimeError):
            return None
        finally:
            rows = None  # the parser cannot be reused while a part of its document is referenced
        return self.cast_values(flat.reshape(-1, self.n_features))

    def convert_rows(self, rows: object, names: Sequence[str] = ()) -> Floats:
        """Convert a parsed list of rows to X (B, N).

        Args:
            rows: Any JSON value.
            names: The names of the columns for an error, or none.

        Raises:
            UnacceptableError: It is not a list of at least one row of N numbers.
            TooLargeError: There are more rows than the limit.
        """
        if type(rows) is not list or not rows:
            raise UnacceptableError('"instances" must be a list of at least one row.')
        check_row_count(len(rows), self.rows_max)
        X = self.gather_rows(rows) if set(map(type, rows)) == {list} else None
        if X is None:
            raise self._find_wrong_row(rows, names)
        return X

    def gather_rows(self, rows: Sequence[Sequence[object]]) -> Floats | None:
        """Return X (B, N) of rows of values, or None if one of them is not N numbers; checks all in bulk."""
        if set(map(len, rows)) != {self.n_features} or not NUMBER_TYPES.issuperset(
            map(type, chain.from_iterable(rows))
        ):
            return None
        values = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * self.n_features)
        return self.cast_values(values.reshape(-1, self.n_features))

    def _find_wrong_row(self, rows: list[Any], names: Sequence[str]) -> UnacceptableError:
        """Return the error of the first of some rows that is not N numbers; there is one."""
        for i, row in enumerate(rows):
            if type(row) is not list:
                return UnacceptableError(f"Row {i} must be a list of {self.n_features} numbers.")
            if len(row) != self.n_features:
                return UnacceptableError(f"Row {i} has {len(row)} values; this model takes {self.n_features}.")
            if not NUMBER_TYPES.issuperset(map(type, row)):
                break
        return explain_row(i, row, names)

    def cast_values(self, values: Floats) -> Floats:
        """Return an aligned copy of X in the model's dtype; the model later rejects NaN and infinity."""
        with np.errstate(over="ignore", invalid="ignore"):  # a signaling NaN in binary data raises "invalid"
            return values.astype(self.dtype)

    def pack_row(self, row: object) -> Floats | None:
        """Return X (1, N) of a parsed row, in a buffer that the next call overwrites; None if it is not a row."""
        try:
            if not NUMBER_TYPES.issuperset(map(type, row)):  # type: ignore[call-overload]  # raises if not iterable
                return None
            self._packer.pack_into(self._single_bytes, 0, *row)  # type: ignore[misc]
        except (TypeError, OverflowError, struct.error):
            return None
        return self._single

    def convert_binary(self, data: memoryview | bytes, datatype: str, count: int) -> Floats:
        """Return X (count, N) of little-endian binary data of that size; one row is in the buffer of `pack_row`."""
        if count == 1 and self._native == datatype:
            self._single_bytes[:] = data
            return self._single
        return self.cast_values(np.frombuffer(data, datatype).reshape(count, self.n_features))

    def parse_tensor_document(self, body: bytes) -> dict[str, Any]:
        """Parse a v2 body; inputs[0]["data"] is a float64 array (B * N,) if pysimdjson could read it.

        Raises:
            MalformedError: The body cannot be parsed.
            TooLargeError: The body has too many lists and objects.
        """
        if len(body) >= SIMDJSON_BYTES_MIN and self._parser is not None and body[:1] != b"\xef" and b"\\" not in body:
            document = _parse_tensor(self._parser, body, self)
            if document is not None:
                return document
        # Each feature may be an input of its own: an object, its shape, its data and its parameters.
        return parse_object(body, self.depth_max, self.rows_max + 2 * self.n_features)


def explain_row(i: int, row: Sequence[object], names: Sequence[str]) -> UnacceptableError:
    """Return the error of row `i`, of which a value is not a number; it has the column's name if there are names."""
    column = next(column for column, value in enumerate(row) if type(value) not in NUMBER_TYPES)
    return cell_error(i, names[column] if names else "")


def cell_error(i: int, name: str, what: str = "a number") -> UnacceptableError:
    """Return the error of a value of row `i` in the column of that name that is not what it must be."""
    quoted = quote_name(name) if name else ""
    return UnacceptableError(f"Row {i} has a value that is not {what}{quoted and ' in column '}{quoted}.")


def _parse_tensor(parser: Any, body: bytes, limits: RowParser) -> dict[str, Any] | None:  # noqa: ANN401
    """Return a v2 document with one large tensor as an array, or None if unsure.

    Everything but the tensor becomes Python objects. The text must then have exactly their strings, so that no key is
    repeated. It must have exactly their opening brackets and those of the tensor. The tensor is a flat list, or rows of
    equal length, of the shape in the document.
    """
    text = np.frombuffer(body, np.uint8)
    opened, n_features = np.count_nonzero(text == BRACKET), limits.n_features
    if opened + body.count(b"{") > containers_max(limits.rows_max):
        return None
    root = entry = data = None
    try:
        root = parser.parse(body)
        document = {key: _to_python(root[key]) for key in root if key != "inputs"}
        (entry,) = root["inputs"]
        fields = {key: _to_python(entry[key]) for key in entry if key != "data"}
        data = entry["data"]
        widths = set(map(len, data)) if opened > len(data) else {0}
        flat = np.frombuffer(data.as_buffer(of_type="d"), np.float64).copy()
        rows = len(data) if widths != {0} else 0
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        return None
    finally:
        root = entry = data = None  # the parser cannot be reused while a part of its document is referenced
    rest = [document, fields]
    depth, strings = measure_document(rest)
    if depth > limits.depth_max - 2:  # `fields` is nested in an object, a list and an object
        return None
    strings += 2  # the keys "inputs" and "data"
    brackets = 2 + rows + sum(map(count_lists, rest))  # those of "inputs" and "data"
    if np.count_nonzero(text == QUOTE) != 2 * strings or opened != brackets:
        return None
    count, left = divmod(flat.size, n_features)
    if left or fields.get("shape") != [count, n_features] or (rows and (rows != count or widths != {n_features})):
        return None
    fields["data"] = flat
    document["inputs"] = [fields]
    return document


def _to_python(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    """Convert a value of pysimdjson to Python objects."""
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def get_instances(document: dict[str, Any]) -> object:
    """Return the value of "instances".

    Raises:
        UnacceptableError: It is missing, or the document has a field that is not in `FIELDS`.
    """
    document = known_fields(document, FIELDS)
    if "instances" not in document:
        raise UnacceptableError('The body must have "instances": a list of rows.')
    return document["instances"]
