"""Documents about models in the form of TensorFlow Serving: the status of versions, and the signature of a model.

Source: TensorFlow Serving's api_rest.md, and its messages get_model_status.proto and get_model_metadata.proto.
"""

from collections.abc import Iterable
from typing import Any, Final

from service.serve.api.tensor_inputs import list_inputs
from service.serve.models.served_model import ServedModel
from service.serve.wire.oip_response import DATATYPE_OF

DTYPES: Final = {
    "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE", "BYTES": "DT_STRING", "BOOL": "DT_BOOL", "INT64": "DT_INT64",
}  # fmt: skip


def version_status(states: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the status of versions, from their states in the native form.

    A version that was unloaded ended without an error; one that was refused failed.
    """
    return [
        {
            "version": one["version"],
            "state": "AVAILABLE" if one["state"] == "READY" else "END",
            "status": {
                "error_code": "OK" if one["state"] == "READY" or one["reason"] == "unloaded" else "FAILED_PRECONDITION",
                "error_message": one["reason"],
            },
        }
        for one in states
    ]


def describe_signature(served: ServedModel) -> dict[str, Any]:
    """Return the body of GET /v1/models/{name}/metadata: the tensors that the model takes and gives."""
    model = served.model
    dtype = DTYPES[DATATYPE_OF[model.dtype.name]]
    definition = {
        "inputs": {one.name: _tensor(one.name, DTYPES[one.datatype], one.width) for one in list_inputs(served)},
        "outputs": {"probabilities": _tensor("probabilities", dtype, model.n_classes)},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": served.name, "signature_name": "", "version": served.version},
        "metadata": {"signature_def": {"signature_def": {"serving_default": definition}}},
    }


def _tensor(name: str, dtype: str, width: int) -> dict[str, Any]:
    """Return the description of a tensor [rows, width]; JSON has the 64-bit integers of its message as strings."""
    dim = [{"size": str(size), "name": ""} for size in (-1, width)]
    return {"dtype": dtype, "tensor_shape": {"dim": dim, "unknown_rank": False}, "name": name}
