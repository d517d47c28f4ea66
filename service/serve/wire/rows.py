"""JSON bytes to arrays.

Three readers share one grammar (grammar.py). orjson makes Python objects, decides every doubtful case and words every
refusal. Our scanner reads the usual prediction body of short numbers in one pass; pysimdjson copies the numbers of any
large regular matrix straight into a buffer, and is believed only where its document leaves no doubt (see
`_matrix_quickly`). Per number they took 31, 8 and 13 ns. A property test holds all of them to the same verdict and the
same bits.

Numbers go decimal -> float64 -> the model's dtype; one that is not finite there is refused by the model.
"""

import struct
import sys
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import TooLargeError, UnacceptableError
from service.serve.wire.json_grammar import check_fields, containers_max, count_lists, measure_document, parse_object
from service.serve.wire.row_scanner import scan_instances

try:
    import simdjson
except ImportError:  # no wheel for this Python: orjson reads everything
    simdjson = None  # type: ignore[assignment]

Floats = NDArray[np.floating[Any]]

# Below this size making Python objects costs no more than asking for a buffer (measured for rows of 4 to 64 numbers).
SIMDJSON_BYTES_MIN: Final = 2048

_NUMBERS: Final = frozenset((int, float))
_QUOTE, _BRACKET, _BRACE = b'"[{'


class RowParser:
    """Reads the rows of one model: `n_features` numbers each, in its dtype. Used by the event loop's thread alone."""

    def __init__(self, n_features: int, dtype: np.dtype[np.floating[Any]], rows_max: int, depth_max: int) -> None:
        self.n_features = n_features
        self.dtype = dtype
        self.rows_max = rows_max
        self.depth_max = depth_max
        self._packer = struct.Struct(f"={n_features}{dtype.char}")
        self._single = np.empty((1, n_features), dtype)
        self._single_bytes = memoryview(self._single.data).cast("B")
        self._native = f"<{dtype.char}{dtype.itemsize}" if sys.byteorder == "little" else ""
        self._parser: Any = simdjson.Parser() if simdjson is not None else None

    def parse_instances(self, body: bytes) -> Floats:
        """X (B, N) of a body `{"instances": [[...], ...]}`; a single row stands in a buffer that the next call reuses.

        Raises:
            MalformedError: The bytes are not JSON of our grammar.
            UnacceptableError: They are, but hold no rows of this model.
            TooLargeError: There are more rows than the limit.
        """
        X = self.parse_usual(body)
        return (
            X if X is not None else self.convert_rows(instances_of(parse_object(body, self.depth_max, self.rows_max)))
        )

    def parse_usual(self, body: bytes) -> Floats | None:
        """As `instances` for a body that holds nothing else and raises nothing, or None in doubt."""
        X = self._scan(body)
        if X is not None:
            return X
        if len(body) >= SIMDJSON_BYTES_MIN:
            return self._matrix_quickly(body)
        # One key, so none is repeated and nothing else stands beside it.
        return self._row_quickly(body) if body.count(b'"') == 2 else None  # noqa: PLR2004

    def _scan(self, body: bytes) -> Floats | None:
        """X (B, N) of a body in the usual form with short numbers, or None where the scanner is in doubt."""
        if scan_instances(body, self._single):
            return self._single
        # A number takes two bytes at least, with what separates it from the next.
        rows = min(len(body) // (2 * self.n_features), self.rows_max + 1)
        if rows <= 1:
            return None
        X = np.empty((rows, self.n_features), self.dtype)
        count = scan_instances(body, X)
        self.check_row_count(count)
        return X[:count] if count else None

    def _row_quickly(self, body: bytes) -> Floats | None:
        """The one row of a small body in the usual form, or None: the general way then finds the fault."""
        try:
            (row,) = orjson.loads(body)["instances"]
        except (KeyError, TypeError, ValueError):
            return None
        return self.pack_row(row)

    def _matrix_quickly(self, body: bytes) -> Floats | None:
        """X (B, N) of a large body in the usual form, or None where there is any doubt.

        The parser's buffer flattens nested and ragged lists and knows no repeated keys. So the text must hold one
        string (the key) and one brace, as many opening brackets as rows and one more, and every row N elements.
        """
        if self._parser is None or body[:1] == b"\xef":
            return None
        text = np.frombuffer(body, np.uint8)
        if np.count_nonzero(text == _QUOTE) != 2 or np.count_nonzero(text == _BRACE) != 1:  # noqa: PLR2004
            return None
        opened = np.count_nonzero(text == _BRACKET)
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
            rows = None  # the parser cannot be used again while a part of its document is alive
        return self.cast_values(flat.reshape(-1, self.n_features))

    def convert_rows(self, rows: object) -> Floats:
        """X (B, N) of a parsed list of rows.

        Raises:
            UnacceptableError: It is not a list of at least one row of N finite numbers.
            TooLargeError: There are more rows than the limit.
        """
        if type(rows) is not list or not rows:
            raise UnacceptableError('"instances" must be a list of at least one row.')
        self.check_row_count(len(rows))
        for i, row in enumerate(rows):
            if type(row) is not list:
                raise UnacceptableError(f"Row {i} must be a list of {self.n_features} numbers.")
            if len(row) != self.n_features:
                raise UnacceptableError(f"Row {i} has {len(row)} values; this model takes {self.n_features}.")
            if not _NUMBERS.issuperset(map(type, row)):
                raise UnacceptableError(f"Row {i} has a value that is not a number.")
        return self.cast_values(np.array(rows, np.float64))

    def check_row_count(self, rows: int) -> None:
        """Raise TooLargeError where a request has more rows than the limit."""
        if rows > self.rows_max:
            raise TooLargeError(f"A request may have at most {self.rows_max} rows; send several requests.")

    def cast_values(self, values: Floats) -> Floats:
        """A fresh aligned copy of X in the model's dtype; the model refuses what became infinite, and NaN."""
        with np.errstate(over="ignore", invalid="ignore"):  # "invalid" is what a signalling NaN of binary data raises
            return values.astype(self.dtype)

    def pack_row(self, row: object) -> Floats | None:
        """X (1, N) of one parsed row, in a buffer that the next call reuses; None where it is no row of this model."""
        try:
            if not _NUMBERS.issuperset(map(type, row)):  # type: ignore[call-overload]  # what is no list raises
                return None
            self._packer.pack_into(self._single_bytes, 0, *row)  # type: ignore[misc]
        except (TypeError, OverflowError, struct.error):
            return None
        return self._single

    def convert_binary(self, data: memoryview, datatype: str, count: int) -> Floats:
        """X (count, N) of little-endian binary data of exactly that size; a single row as in `single`."""
        if count == 1 and self._native == datatype:
            self._single_bytes[:] = data
            return self._single
        return self.cast_values(np.frombuffer(data, datatype).reshape(count, self.n_features))

    def parse_tensor_document(self, body: bytes) -> dict[str, Any]:
        """Parse a v2 body; inputs[0]["data"] is a float64 array (B * N,) where the quick parser is believed.

        Raises:
            MalformedError: The bytes are not JSON of our grammar.
        """
        if len(body) >= SIMDJSON_BYTES_MIN and self._parser is not None and body[:1] != b"\xef" and b"\\" not in body:
            document = _tensor_quickly(self._parser, body, self)
            if document is not None:
                return document
        return parse_object(body, self.depth_max, self.rows_max)


def _tensor_quickly(parser: Any, body: bytes, limits: RowParser) -> dict[str, Any] | None:  # noqa: ANN401
    """A v2 document with one large tensor as an array, or None where there is any doubt.

    All but the tensor becomes Python objects. The text must then hold just their strings (so no key is repeated), and
    just their opening brackets beside those of a flat list or of equally long rows, of the shape that is announced.
    """
    text = np.frombuffer(body, np.uint8)
    opened, n_features = np.count_nonzero(text == _BRACKET), limits.n_features
    if opened + body.count(b"{") > containers_max(limits.rows_max):
        return None
    root = entry = data = None
    try:
        root = parser.parse(body)
        document = {key: _plain(root[key]) for key in root if key != "inputs"}
        (entry,) = root["inputs"]
        fields = {key: _plain(entry[key]) for key in entry if key != "data"}
        data = entry["data"]
        widths = set(map(len, data)) if opened > len(data) else {0}
        flat = np.frombuffer(data.as_buffer(of_type="d"), np.float64).copy()
        rows = len(data) if widths != {0} else 0
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        return None
    finally:
        root = entry = data = None  # the parser cannot be used again while a part of its document is alive
    rest = [document, fields]
    depth, strings = measure_document(rest)
    if depth > limits.depth_max - 2:  # the deeper of the two stands in an object in a list in an object
        return None
    strings += 2  # "inputs" and "data"
    brackets = 2 + rows + sum(map(count_lists, rest))  # those of "inputs" and "data"
    if np.count_nonzero(text == _QUOTE) != 2 * strings or opened != brackets:
        return None
    count, left = divmod(flat.size, n_features)
    if left or fields.get("shape") != [count, n_features] or (rows and (rows != count or widths != {n_features})):
        return None
    fields["data"] = flat
    document["inputs"] = [fields]
    return document


def _plain(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    """A parsed value as Python objects."""
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def instances_of(document: dict[str, Any]) -> object:
    """The value of "instances".

    Raises:
        UnacceptableError: It is missing, or an unknown field stands beside it.
    """
    check_fields(document, ("instances", "parameters", "signature_name"))
    if "instances" not in document:
        raise UnacceptableError('The body must have "instances": a list of rows.')
    return document["instances"]
