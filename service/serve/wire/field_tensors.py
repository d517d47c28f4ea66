"""Parse requests of the Open Inference Protocol v2 for a model with fields: one tensor for each value, by its name.

    number, boolean, category, text    [rows] or [rows, 1]
    vector                             [rows, size]; [rows] if the size is 1
    bag                                [rows] or [rows, 1] of BYTES: the JSON of each bag

The values are JSON or binary data (oip_tensors.py), and the datatype is BYTES for texts, BOOL for booleans, or one of
numbers; null in JSON and NaN are missing, and so is a field without a tensor. The order of the tensors does not matter,
and parameters such as `content_type`, which MLServer's clients send, are ignored.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import MalformedError, UnacceptableError
from service.fields.entries import Values
from service.fields.field_list import group_by_value
from service.fields.field_records import VectorField
from service.fields.refusals import refuse_value
from service.fields.text_records import BagField
from service.serve.wire.field_tables import FieldTables
from service.serve.wire.json_grammar import NUMBER_TYPES, check_row_count, quote_name
from service.serve.wire.oip_inputs import BOOL, DATATYPES, FLAGS, get_parameters, not_flags
from service.serve.wire.oip_request import check_binary_data, parse_request_id, parse_requested_outputs
from service.serve.wire.oip_response import InferenceBody, ResponseEncoder
from service.serve.wire.oip_tensors import parse_header_length
from service.serve.wire.table_grammar import check_repeated

BYTES: Final = "BYTES"
# The length before each element of binary BYTES.
LENGTH_BYTES: Final = 4
KNOWN_DATATYPES: Final = {**DATATYPES, BOOL: "|u1", BYTES: ""}
# The types that the JSON values of a datatype have, and what they are called; other datatypes have NUMBERS.
JSON_TYPES: Final = {
    BYTES: (frozenset((str, type(None))), "a text"),
    BOOL: (frozenset((bool, int, type(None))), "true or false"),
}
NUMBERS: Final = (NUMBER_TYPES | {type(None)}, "a number")


class FieldTensor(NamedTuple):
    """The tensor of one value of each row, without its binary data.

    Attributes:
        name: The name of the value, that of its field unless the field has a source.
        datatype: Its datatype.
        rows: The number of rows.
        width: The numbers of a row: the size of a vector, else 1.
        binary_size: The bytes of its binary data, or None if `data` has its values.
        data: The JSON value of "data", or None.
    """

    name: str
    datatype: str
    rows: int
    width: int
    binary_size: int | None
    data: Any


class FieldTensorCodec(ResponseEncoder):
    """Parses requests and encodes responses of one served model with fields. Use it on the event loop's thread only.

    Args:
        tables: The parser of the model's rows.
        model_fields: The fields of every response that name the model: model_name and model_version.
        state_fields: The parameters of every response that name the state: seq, and epoch.
        classes: The names of the classes.
    """

    def __init__(
        self,
        tables: FieldTables,
        model_fields: Mapping[str, str],
        state_fields: Mapping[str, int],
        classes: tuple[str, ...],
    ) -> None:
        super().__init__(tables.dtype, model_fields, state_fields, classes)
        self._tables: Final = tables
        # Vectors of one value have one size, and no other kind reads theirs or that of a bag.
        firsts = {name: group[0] for name, group in group_by_value(tables.encoder.fields).items()}
        self._vectors: Final = {name: field.size for name, field in firsts.items() if isinstance(field, VectorField)}
        self._bags: Final = {name for name, field in firsts.items() if isinstance(field, BagField)}

    def parse_inference(self, body: bytes, header_length: bytes | None) -> InferenceBody:
        """Parse a request.

        Args:
            body: The whole body.
            header_length: The value of Inference-Header-Content-Length, or None if the header is missing.

        Raises:
            MalformedError: The bytes do not follow the protocol.
            UnacceptableError: The bytes follow the protocol, but have no rows of this model.
            TooLargeError: There are more rows or entries than the limit.
        """
        length = len(body) if header_length is None else parse_header_length(header_length, len(body))
        if not length and header_length is not None:
            raise MalformedError("A raw tensor has no names of fields; send a JSON part with one input for each field.")
        document = self._tables.parse_document(body[:length], self._tables.rows_max)
        request_id = parse_request_id(document, self.model_fields)
        tensors = self._parse_tensors(document.get("inputs"))
        outputs = parse_requested_outputs(document)
        binary = memoryview(body)[length:]
        sizes = [tensor.binary_size for tensor in tensors if tensor.binary_size is not None]
        check_binary_data(sum(sizes) if sizes else None, len(binary), has_header=header_length is not None)
        columns: dict[str, Values] = {}
        start = 0
        for tensor in tensors:
            stop = start + (tensor.binary_size or 0)
            columns[tensor.name] = self._convert(tensor, binary[start:stop])
            start = stop
        X = self._tables.convert_columns(columns)
        return InferenceBody(request_id, X, outputs)

    def _parse_tensors(self, inputs: object) -> list[FieldTensor]:
        """Return the tensors of a request, which have as many rows as each other."""
        if type(inputs) is not list or not inputs or any(type(tensor) is not dict for tensor in inputs):
            raise UnacceptableError('"inputs" must be a list of at least one tensor object.')
        names = [tensor.get("name") for tensor in inputs]
        if not {str}.issuperset(map(type, names)):
            raise UnacceptableError('"name" of an input must be a string.')
        check_repeated(names, "an input")
        tensors = [_parse_tensor(tensor, self._vectors.get(tensor["name"], 1)) for tensor in inputs]
        for tensor in tensors:
            check_row_count(tensor.rows, self._tables.rows_max)
            if tensor.rows != tensors[0].rows:
                raise UnacceptableError(f"{_label(tensor.name)} must have as many rows as the other inputs.")
        return tensors

    def _convert(self, tensor: FieldTensor, binary: memoryview) -> Values:
        """Return the values (B,) or (B, size) of a tensor."""
        values: Values
        if tensor.binary_size is None:
            values = _convert_data(tensor)
        elif tensor.datatype == BYTES:
            values = _decode_texts(tensor, binary)
        else:
            values = _convert_numbers(tensor, binary)
        size = self._vectors.get(tensor.name)
        if size is not None:
            if isinstance(values, np.ndarray):
                return values.reshape(-1, size)
            return [values[i : i + size] for i in range(0, len(values), size)]
        if tensor.name in self._bags:
            return [_parse_bag(tensor.name, row, text) for row, text in enumerate(values)]
        return values


def _label(name: str) -> str:
    """Return how an error names the tensor of a field."""
    quoted = quote_name(name)
    return f"Input {quoted}" if quoted else "An input"


def _parse_tensor(tensor: dict[str, Any], width: int) -> FieldTensor:
    """Return the tensor of a field whose rows have `width` values each."""
    name, datatype, shape = tensor["name"], tensor.get("datatype"), tensor.get("shape")
    if type(datatype) is not str or datatype not in KNOWN_DATATYPES:
        raise UnacceptableError(f'"datatype" must be one of {", ".join(KNOWN_DATATYPES)}.')
    endings, wanted = (([1], []), "[rows, 1] or [rows]") if width == 1 else (([width],), f"[rows, {width}]")
    if type(shape) is not list or set(map(type, shape)) != {int} or shape[1:] not in endings or shape[0] < 1:
        raise UnacceptableError(f'{_label(name)} must have "shape": {wanted} with at least one row.')
    count, data, size = shape[0], tensor.get("data"), get_parameters(tensor).get("binary_data_size")
    if size is None:
        return FieldTensor(name, datatype, count, width, None, data)
    if data is not None:
        raise MalformedError('An input must have either "data" or "binary_data_size", not both.')
    itemsize = LENGTH_BYTES if datatype == BYTES else np.dtype(KNOWN_DATATYPES[datatype]).itemsize
    least = count * width * itemsize
    if type(size) is not int or size < least or (size > least and datatype != BYTES):
        of = "at least " if datatype == BYTES else ""
        raise MalformedError(f'"binary_data_size" must be {of}{least} for this shape and datatype.')
    return FieldTensor(name, datatype, count, width, size, None)


def _convert_data(tensor: FieldTensor) -> list[Any]:
    """Return the values of a tensor as a flat list; its data is flat, or a list of rows."""
    data, count, width = tensor.data, tensor.rows, tensor.width
    if type(data) is list and set(map(type, data)) == {list}:
        data = list(chain.from_iterable(data)) if len(data) == count and set(map(len, data)) == {width} else None
    if type(data) is not list or len(data) != count * width:
        raise UnacceptableError(f'{_label(tensor.name)} must have "data": as many values as its "shape" needs.')
    accepted, what = JSON_TYPES.get(tensor.datatype, NUMBERS)
    if not accepted.issuperset(map(type, data)):
        wrong = next(i for i, value in enumerate(data) if type(value) not in accepted)
        raise refuse_value(wrong // width, tensor.name, f"must be {what}, because of its datatype")
    if tensor.datatype == BOOL:
        if not FLAGS.issuperset(value for value in data if value is not None):
            raise not_flags()
        return [None if value is None else bool(value) for value in data]
    return data


def _convert_numbers(tensor: FieldTensor, binary: memoryview) -> NDArray[Any]:
    """Return the numbers or booleans of binary data."""
    values = np.frombuffer(binary, KNOWN_DATATYPES[tensor.datatype])
    if tensor.datatype != BOOL:
        return values
    if values.max() > 1:
        raise not_flags()
    return values.astype(np.bool_)


def _decode_texts(tensor: FieldTensor, binary: memoryview) -> list[str]:
    """Return the texts of binary data: each its length in four little-endian bytes, then its UTF-8."""
    texts: list[str] = []
    start = 0
    for i in range(tensor.rows * tensor.width):
        first = start + LENGTH_BYTES
        start = first + int.from_bytes(binary[start:first], "little")
        if first > len(binary) or start > len(binary):
            raise MalformedError(f"{_label(tensor.name)} has an element that is longer than its binary data.")
        try:
            texts.append(str(binary[first:start], "utf-8"))
        except UnicodeDecodeError:
            raise refuse_value(i // tensor.width, tensor.name, "must be valid UTF-8") from None
    if start != len(binary):
        raise MalformedError(f"{_label(tensor.name)} has binary data after its last element.")
    return texts


def _parse_bag(name: str, row: int, text: object) -> Any:  # noqa: ANN401  # any JSON value
    """Return the bag of a JSON text; null is missing."""
    if text is None:
        return None
    try:
        return orjson.loads(text) if isinstance(text, str) else text
    except orjson.JSONDecodeError:
        problem = "must be the JSON of an object of names and numbers, or of a list of names"
        raise refuse_value(row, name, problem) from None
