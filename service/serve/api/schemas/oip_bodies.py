"""Bodies of Open Inference Protocol v2 inference.

Source: Open Inference Protocol, specification/protocol/inference_rest.md; Triton's extension_binary_data.md and
extension_classification.md.
"""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from service.serve.api.schemas.schema_types import (
    IRIS,
    IRIS_FEATURES,
    IRIS_PROBABILITIES,
    Count,
    ResponseModel,
    Seq,
    absent,
    one_of,
)
from service.serve.wire.oip_inputs import BOOL, DATATYPES
from service.serve.wire.oip_request import OUTPUTS

Datatype = Annotated[str, *one_of((*DATATYPES, BOOL))]
OutputName = Annotated[str, *one_of(OUTPUTS)]
# BYTES is the type of labels, BOOL that of the labels of a multi-label model.
OutputDatatype = Annotated[str, *one_of(("FP32", "FP64", "BYTES", "BOOL"))]
Positive = Annotated[int, Field(ge=1)]
# The booleans are those of a BOOL tensor.
SomeNumbers = Annotated[list[bool | float], Field(min_length=1)]


class OpenModel(BaseModel):
    """An object of a v2 request; the protocol lets clients send other members, which are ignored."""

    model_config = ConfigDict(extra="allow", frozen=True)


class InferParameters(OpenModel):
    """Parameters of an inference request."""

    binary_data_output: bool | None = Field(
        default=False, description="Whether outputs come as binary data unless they say otherwise."
    )


class TensorParameters(OpenModel):
    """Parameters of an input."""

    binary_data_size: Count | None = Field(
        default_factory=absent, description="The bytes of the tensor after the JSON part, in place of `data`."
    )


class OutputParameters(OpenModel):
    """Parameters of a requested output."""

    binary_data: bool | None = Field(default_factory=absent, description="Whether this output comes as binary data.")
    classification: Count | None = Field(
        default=0,
        description="For `probabilities`: return the most probable classes, so many of them, "
        'each as "probability:index:class".',
    )


class InputTensor(OpenModel):
    """All features of the rows as a tensor, or one of them."""

    name: str = Field(description="Any text, or the name of the feature.")
    shape: list[Positive] = Field(
        min_length=1, max_length=2, description="[rows, features]; for one feature [rows] or [rows, 1]."
    )
    datatype: Datatype = Field(description="The type of the values.")
    parameters: TensorParameters | None = Field(default_factory=absent, description="Parameters of the input.")
    data: SomeNumbers | Annotated[list[SomeNumbers], Field(min_length=1)] | None = Field(
        default_factory=absent,
        description="The values, flat or as a list of rows, unless they follow as binary data. "
        "Those of BOOL are true, false, 1 or 0, others are numbers.",
    )


class RequestedOutput(OpenModel):
    """An output that a request asks for."""

    name: OutputName = Field(description="The output's name.")
    parameters: OutputParameters | None = Field(default_factory=absent, description="Parameters of the output.")


class InferRequest(OpenModel):
    """Rows to predict, as one tensor or as one tensor for each feature."""

    id: str | None = Field(default="", description="Any text; the response has the same one.")
    model_name: str | None = Field(
        default_factory=absent, description="The name of the model, as in the path; KServe's client sends it."
    )
    model_version: str | int | None = Field(
        default_factory=absent, description="The version that answers, as in the path, or empty."
    )
    parameters: InferParameters | None = Field(default_factory=absent, description="Parameters of the request.")
    inputs: list[InputTensor] = Field(
        min_length=1, description="One input with all features, or one for each feature, in any order."
    )
    outputs: list[RequestedOutput] | None = Field(
        default_factory=absent,
        max_length=len(OUTPUTS),
        description="The outputs, each at most once; `probabilities` if there are none.",
    )


class BinarySize(ResponseModel):
    """Parameters of an output that comes as binary data."""

    binary_data_size: Count = Field(description="The bytes of the tensor after the JSON part.")


class OutputTensor(ResponseModel):
    """An output."""

    name: OutputName = Field(description="The output's name.")
    datatype: OutputDatatype = Field(description="The type of the values.")
    shape: list[Count] = Field(description="The rows, and the other dimensions of the output.")
    parameters: BinarySize = Field(default_factory=absent, description="Present if the output comes as binary data.")
    data: list[float | bool | str] = Field(
        default_factory=absent, description="The values, flat, unless they follow as binary data."
    )


class InferState(ResponseModel):
    """The state of the model that answered."""

    seq: Seq = Field(description="The last event of the feedback log that the weights hold; 0 before any feedback.")
    epoch: Count = Field(
        default_factory=absent, description="How often feedback was forgotten; left out while that is 0."
    )


class InferResponse(ResponseModel):
    """The outputs of an inference."""

    model_name: str = Field(description="The model's name.")
    model_version: str = Field(description="The version that answered.")
    id: str = Field(description="The id of the request, or empty.")
    parameters: InferState = Field(description="Which state of the model answered.")
    outputs: list[OutputTensor] = Field(description="The outputs, in the order of the request.")


_TENSOR: Final = {"name": "features", "shape": [1, 4], "datatype": "FP32", "data": IRIS}
INFER_REQUESTS: Final = {
    "one row": {"inputs": [_TENSOR]},
    "probabilities and labels": {
        "id": "a",
        "inputs": [_TENSOR],
        "outputs": [{"name": "probabilities"}, {"name": "labels"}],
    },
    "the two most probable classes": {
        "inputs": [_TENSOR],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
    },
    "one tensor for each feature": {
        "inputs": [
            {"name": name, "shape": [1, 1], "datatype": "FP32", "data": [value]}
            for name, value in zip(IRIS_FEATURES, IRIS, strict=True)
        ],
    },
}
_IRIS: Final = {"model_name": "iris", "model_version": "1", "parameters": {"seq": 0}}
_PROBABILITIES: Final = {"name": "probabilities", "datatype": "FP32", "shape": [1, 3], "data": IRIS_PROBABILITIES}
INFER_RESPONSES: Final = {
    "one row": {**_IRIS, "id": "", "outputs": [_PROBABILITIES]},
    "one tensor for each feature": {**_IRIS, "id": "", "outputs": [_PROBABILITIES]},
    "probabilities and labels": {
        **_IRIS,
        "id": "a",
        "outputs": [_PROBABILITIES, {"name": "labels", "datatype": "BYTES", "shape": [1], "data": ["setosa"]}],
    },
    "the two most probable classes": {
        **_IRIS,
        "id": "",
        "outputs": [
            {
                "name": "probabilities",
                "datatype": "BYTES",
                "shape": [1, 2],
                "data": ["0.9992543:0:setosa", "0.00074565754:1:versicolor"],
            }
        ],
    },
}
# The JSON parts of bodies with binary data; the tensor follows them.
BINARY_REQUEST: Final = {
    "inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}],
    "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
}
BINARY_RESPONSE: Final = {
    "model_name": "iris",
    "model_version": "1",
    "id": "",
    "parameters": {"seq": 0},
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}],
}
LENGTH_PARAMETER: Final = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "description": "The bytes of the JSON part, if binary data follows it; 0 if the body is the tensor alone.",
    "schema": {"type": "integer", "minimum": 0},
}
LENGTH_HEADER: Final = {
    "description": "The bytes of the JSON part, if binary data follows it.",
    "schema": {"type": "integer", "minimum": 0},
    "example": 178,
}
