"""Run ONNX models on rows of names and values.

    type of an input     a missing value
    float, double        NaN
    int32, int64         the least number
    string               ""
    bool                 false

A graph cannot refuse a row. One that was exported answers a value that the model refuses with NaN probabilities.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from service.convert.converted_model import Row
from service.errors import ConversionError
from service.fields.column_names import show_category

# The dtypes of inputs by their types in ONNX.
DTYPES: Final[dict[int, type[Any]]] = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.INT32: np.int32,
    onnx.TensorProto.INT64: np.int64,
    onnx.TensorProto.STRING: np.object_,
    onnx.TensorProto.BOOL: np.bool_,
}
# Messages of onnxruntime below errors are about its own optimizations.
SEVERITY_FATAL: Final = 4


class InputForm(NamedTuple):
    """An input of a graph, (rows, W).

    Attributes:
        name: Its name.
        datatype: Its type, as ONNX numbers it.
        names: The names of its W values in a row; or of the one value that is a list of W numbers.
        size: W if one value of a row is a list, else 0.
        rank: The number of dimensions: 2, or 1 for (rows,).
    """

    name: str
    datatype: int
    names: tuple[str, ...]
    size: int = 0
    rank: int = 2


class OnnxSession:
    """A graph that can be run.

    Args:
        raw: The model; it has no data in other files.
        inputs: Its inputs.
        output: The output that is wanted.

    Raises:
        ConversionError: onnxruntime cannot run the model.
    """

    def __init__(self, raw: bytes, inputs: Sequence[InputForm], output: str) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = SEVERITY_FATAL
        # Sums in one order, and no threads that wait.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session: Final = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        except Exception:  # noqa: BLE001  # onnxruntime has a class for each of its codes, below Exception itself
            raise ConversionError("onnxruntime cannot run the model") from None
        used = {value.name for value in self._session.get_inputs()}
        self._inputs: Final = [form for form in inputs if form.name in used]
        self._output: Final = output

    def run(self, rows: Sequence[Row]) -> Any:  # noqa: ANN401  # an array, or a list of maps
        """Return the output for rows.

        Raises:
            ConversionError: onnxruntime cannot answer them.
        """
        feeds = {form.name: make_input(form, rows) for form in self._inputs}
        try:
            return self._session.run([self._output], feeds)[0]
        except Exception:  # noqa: BLE001  # as above
            raise ConversionError("onnxruntime cannot answer the rows with the model") from None


def make_input(form: InputForm, rows: Sequence[Row]) -> NDArray[Any]:
    """Return the input (rows, W) of B rows."""
    dtype = DTYPES[form.datatype]
    if form.size:
        gap = [np.nan] * form.size
        values = [gap if row.get(form.names[0]) is None else row[form.names[0]] for row in rows]
        return np.array(values, dtype).reshape(len(rows), form.size)
    table = [[_convert(row.get(name), form.datatype) for name in form.names] for row in rows]
    return np.array(table, dtype).reshape((len(rows), len(form.names))[: form.rank])


def _convert(value: Any, datatype: int) -> Any:  # noqa: ANN401  # any JSON value
    """Return a value in the type of an input."""
    if datatype == onnx.TensorProto.STRING:
        return "" if value is None else show_category(int(value) if type(value) is float else value)
    if datatype in {onnx.TensorProto.INT32, onnx.TensorProto.INT64}:
        return np.iinfo(DTYPES[datatype]).min if value is None else int(value)
    if datatype == onnx.TensorProto.BOOL:
        return value is True
    return np.nan if value is None else value
