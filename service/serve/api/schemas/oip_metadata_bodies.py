"""Bodies of the Open Inference Protocol v2 calls that describe the server and its models.

Source: as in `api/model_metadata.py`.
"""

from typing import Annotated, Final

from pydantic import Field

from service.serve.api.schemas.schema_types import Count, ResponseModel, absent, one_of

Size = Annotated[int, Field(ge=-1)]
ConfigType = Annotated[str, *one_of(("TYPE_FP32", "TYPE_FP64", "TYPE_INT64", "TYPE_STRING", "TYPE_BOOL"))]
ConfigOutputType = Annotated[str, *one_of(("TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BOOL"))]
TensorType = Annotated[str, *one_of(("FP32", "FP64", "INT64", "BYTES", "BOOL"))]


class ServerMetadata(ResponseModel):
    """The server."""

    name: str = Field(description="The server's name.")
    version: str = Field(description="The server's version.")
    extensions: list[str] = Field(description="The extensions of the protocol that it has.")


class TensorMetadata(ResponseModel):
    """A tensor that a model takes or gives."""

    name: str = Field(description="The tensor's name.")
    datatype: TensorType = Field(description="The type of its values.")
    shape: list[Size] = Field(description="Its dimensions; -1 is the number of rows.")


class TensorModelMetadata(ResponseModel):
    """The tensors of a model."""

    name: str = Field(description="The model's name.")
    versions: list[str] = Field(description="The versions that are served.")
    platform: str = Field(description="The form of the model's files.")
    inputs: list[TensorMetadata] = Field(description="The tensors that the model takes.")
    outputs: list[TensorMetadata] = Field(description="The tensors that the model gives.")


class ConfigInput(ResponseModel):
    """An input in Triton's form."""

    name: str = Field(description="The input's name.")
    data_type: ConfigType = Field(description="The type of its values.")
    dims: list[Count] = Field(description="Its dimensions without that of the rows.")


class ConfigReshape(ResponseModel):
    """How a client reshapes an output."""

    shape: list[Count] = Field(description="The dimensions after it.")


class ConfigOutput(ResponseModel):
    """An output in Triton's form."""

    name: str = Field(description="The output's name.")
    data_type: ConfigOutputType = Field(description="The type of its values.")
    dims: list[Count] = Field(description="Its dimensions without that of the rows.")
    reshape: ConfigReshape = Field(
        default_factory=absent, description="Present if the output is one value for each row."
    )


class ConfigBatching(ResponseModel):
    """An empty object: batches are formed without settings."""


class ModelConfig(ResponseModel):
    """A model's configuration in Triton's form."""

    name: str = Field(description="The model's name.")
    platform: str = Field(description="The form of the model's files.")
    backend: str = Field(description="The server's name.")
    max_batch_size: Count = Field(description="The largest number of rows of a request.")
    input: list[ConfigInput] = Field(description="The tensors that the model takes.")
    output: list[ConfigOutput] = Field(description="The tensors that the model gives.")
    dynamic_batching: ConfigBatching = Field(description="Requests share batches.")


class CountAndTime(ResponseModel):
    """How often something was done, and how long it took."""

    count: Count = Field(description="How often.")
    ns: Count = Field(description="Nanoseconds in all.")


class InferenceStatistics(ResponseModel):
    """Durations of a model's requests; those that the server does not measure are 0."""

    success: CountAndTime = Field(description="Requests that were answered.")
    fail: CountAndTime = Field(description="Requests that were refused; their time is not measured.")
    queue: CountAndTime = Field(description="Waiting in a queue; not measured.")
    compute_input: CountAndTime = Field(description="Preparing inputs; not measured.")
    compute_infer: CountAndTime = Field(description="Computing predictions.")
    compute_output: CountAndTime = Field(description="Preparing outputs; not measured.")
    cache_hit: CountAndTime = Field(description="Answers from a cache; there is none.")
    cache_miss: CountAndTime = Field(description="Answers not found in a cache; there is none.")


class BatchStatistics(ResponseModel):
    """Statistics of one batch size; the server records none."""


class ModelStatisticsEntry(ResponseModel):
    """The statistics of one model version, summed over workers."""

    name: str = Field(description="The model's name.")
    version: str = Field(description="The version's number.")
    last_inference: Count = Field(description="When it last answered, in milliseconds since 1970; 0 before.")
    inference_count: Count = Field(description="How many rows it predicted.")
    execution_count: Count = Field(description="How many kernel calls that took.")
    inference_stats: InferenceStatistics = Field(description="Durations of its requests.")
    batch_stats: list[BatchStatistics] = Field(description="Empty.")


class ModelStatistics(ResponseModel):
    """The statistics of model versions."""

    model_stats: list[ModelStatisticsEntry] = Field(description="One entry for each version.")


SERVER: Final = {
    "server": {
        "name": "softstep",
        "version": "0.1.0",
        "extensions": [
            "binary_tensor_data",
            "classification",
            "model_configuration",
            "model_repository",
            "statistics",
        ],
    }
}
TENSORS: Final = {
    "iris": {
        "name": "iris",
        "versions": ["1"],
        "platform": "softstep_safetensors",
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "labels", "datatype": "BYTES", "shape": [-1]},
        ],
    }
}
CONFIG: Final = {
    "iris": {
        "name": "iris",
        "platform": "softstep_safetensors",
        "backend": "softstep",
        "max_batch_size": 65536,
        "input": [{"name": "features", "data_type": "TYPE_FP32", "dims": [4]}],
        "output": [
            {"name": "probabilities", "data_type": "TYPE_FP32", "dims": [3]},
            {"name": "labels", "data_type": "TYPE_STRING", "dims": [1], "reshape": {"shape": []}},
        ],
        "dynamic_batching": {},
    }
}
_ZERO: Final = {"count": 0, "ns": 0}
STATISTICS: Final = {
    "iris": {
        "model_stats": [
            {
                "name": "iris",
                "version": "1",
                "last_inference": 1795923501702,
                "inference_count": 4,
                "execution_count": 4,
                "inference_stats": {
                    "success": {"count": 4, "ns": 4658263},
                    "fail": _ZERO,
                    "queue": _ZERO,
                    "compute_input": _ZERO,
                    "compute_infer": {"count": 4, "ns": 959982},
                    "compute_output": _ZERO,
                    "cache_hit": _ZERO,
                    "cache_miss": _ZERO,
                },
                "batch_stats": [],
            }
        ]
    }
}
