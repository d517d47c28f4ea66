"""Build ONNX graphs: nodes, constants and inputs with names of their own, and the model around them.

The operators are those of opset 17 and of ai.onnx.ml 3, which runtimes have had since 2022.
"""

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from service import __version__

OPSET, ML_OPSET, IR_VERSION = 17, 3, 8
ML_DOMAIN: Final = "ai.onnx.ml"
ROWS: Final = "rows"
"""The name of the first dimension of all inputs and outputs."""


class GraphBuilder:
    """Collects a graph.

    Args:
        reserved: Names that inputs and outputs have, and nothing else may have.
        dtype: The dtype of the model.
    """

    def __init__(self, reserved: set[str], dtype: str) -> None:
        self._reserved: Final = reserved
        self.dtype: Final = np.dtype(dtype)
        self._nodes: Final[list[onnx.NodeProto]] = []
        self._constants: Final[list[onnx.TensorProto]] = []
        self._inputs: Final[dict[str, onnx.ValueInfoProto]] = {}
        self._outputs: Final[list[onnx.ValueInfoProto]] = []
        self._count = 0

    def add_input(self, name: str, datatype: int, width: int) -> str:
        """Add an input (rows, width); return its name."""
        self._inputs[name] = onnx.helper.make_tensor_value_info(name, datatype, [ROWS, width])
        return name

    def input_type(self, name: str) -> int:
        """Return the type of an input, as ONNX numbers it."""
        return self._inputs[name].type.tensor_type.elem_type

    def add_output(self, name: str, value: str, datatype: int, shape: list[int | str]) -> None:
        """Give a value the name of an output."""
        self._nodes.append(onnx.helper.make_node("Identity", [value], [name], name=f"output {name}"))
        self._outputs.append(onnx.helper.make_tensor_value_info(name, datatype, shape))

    def constant(self, value: NDArray[Any] | float) -> str:
        """Add a constant: an array as it is, or a number in the dtype of the model; return its name."""
        name = self._new_name("constant")
        array = np.asarray(value) if isinstance(value, np.ndarray) else np.array(value, self.dtype)
        self._constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def texts(self, texts: list[str]) -> str:
        """Add a constant (n,) of texts; return its name."""
        name = self._new_name("constant")
        self._constants.append(onnx.numpy_helper.from_array(np.array(texts, np.object_), name))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:  # noqa: ANN401  # of any type
        """Add a node with one output; return the name of that."""
        name = self._new_name(operator)
        node = onnx.helper.make_node(operator, inputs, [name], name=name, domain=domain, **attributes)
        self._nodes.append(node)
        return name

    def cast(self, value: str, datatype: int | None = None) -> str:
        """Convert a value to a type, by default that of the model; return its name."""
        return self.add("Cast", value, to=self.datatype if datatype is None else datatype)

    @property
    def datatype(self) -> int:
        """The type of the model as ONNX numbers it."""
        return onnx.TensorProto.FLOAT if self.dtype == np.float32 else onnx.TensorProto.DOUBLE

    def build(self, metadata: dict[str, str]) -> onnx.ModelProto:
        """Return the model.

        Args:
            metadata: Names and texts that describe it.
        """
        graph = onnx.helper.make_graph(
            self._nodes, "softstep", list(self._inputs.values()), self._outputs, self._constants
        )
        opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
        model = onnx.helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=IR_VERSION,
            producer_name="softstep",
            producer_version=__version__,
        )
        onnx.helper.set_model_props(model, metadata)
        return model

    def _new_name(self, kind: str) -> str:
        """Return a name that nothing else has."""
        self._count += 1
        name = f"{kind}_{self._count}"
        return name if name not in self._reserved else self._new_name(kind)
