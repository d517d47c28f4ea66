"""Bodies in the form of TensorFlow Serving: the status of versions, and the signature of a model."""

from typing import Final, Literal

from pydantic import Field

from service.serve.api.schemas.schema_types import ResponseModel


class StatusDetail(ResponseModel):
    """The reason of a version's state."""

    error_code: Literal["OK", "FAILED_PRECONDITION"] = Field(description="Whether loading the version failed.")
    error_message: str = Field(description="The reason; empty if there is none.")


class VersionStatus(ResponseModel):
    """The status of one version."""

    version: str = Field(description="The version's number.")
    state: Literal["AVAILABLE", "END"] = Field(description="Whether the version is served.")
    status: StatusDetail = Field(description="Why the version has this state.")


class TensorDimension(ResponseModel):
    """One dimension of a tensor."""

    size: str = Field(description="The size as a string; -1 is the number of rows.")
    name: str = Field(description="Empty.")


class TensorShape(ResponseModel):
    """The shape of a tensor."""

    dim: list[TensorDimension] = Field(description="The dimensions.")
    unknown_rank: bool = Field(description="Always false.")


class TensorDescription(ResponseModel):
    """A tensor that a model takes or gives."""

    dtype: Literal["DT_FLOAT", "DT_DOUBLE"] = Field(description="The type of the numbers.")
    tensor_shape: TensorShape = Field(description="The shape.")
    name: str = Field(description="The tensor's name.")


class SignatureDefinition(ResponseModel):
    """A signature: its inputs and outputs."""

    inputs: dict[str, TensorDescription] = Field(description="The inputs by name.")
    outputs: dict[str, TensorDescription] = Field(description="The outputs by name.")
    method_name: str = Field(description="How the signature is called.")


class SignatureMap(ResponseModel):
    """The signatures of a model."""

    signature_def: dict[str, SignatureDefinition] = Field(description="The signatures by name; there is one.")


class SignatureMetadata(ResponseModel):
    """The metadata of a model: its signatures."""

    signature_def: SignatureMap = Field(description="The signatures.")


class ModelSpec(ResponseModel):
    """The model that metadata describes."""

    name: str = Field(description="The model's name.")
    signature_name: str = Field(description="Empty.")
    version: str = Field(description="The version described.")


class ModelSignature(ResponseModel):
    """The tensors of a model version."""

    model_spec: ModelSpec = Field(description="The model.")
    metadata: SignatureMetadata = Field(description="Its signatures.")


def _tensor(name: str, width: int) -> dict[str, object]:
    dim = [{"size": "-1", "name": ""}, {"size": str(width), "name": ""}]
    return {"dtype": "DT_FLOAT", "tensor_shape": {"dim": dim, "unknown_rank": False}, "name": name}


SIGNATURE: Final = {
    "iris": {
        "model_spec": {"name": "iris", "signature_name": "", "version": "1"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {"features": _tensor("features", 4)},
                        "outputs": {"probabilities": _tensor("probabilities", 3)},
                        "method_name": "tensorflow/serving/predict",
                    }
                }
            }
        },
    }
}
AVAILABLE: Final = [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]
UNLOADED: Final = [{"version": "1", "state": "END", "status": {"error_code": "OK", "error_message": "unloaded"}}]
