"""Validation of tensors against a manifest: their names, dtypes and shapes, and that every number is finite.

The manifest defines the number of features and logits, and the biases define the widths of the hidden layers. The
inputs of each layer are the outputs of the one before it:

    tensor              shape        K is
    weight of a layer   (N, K)       of a hidden layer the size of its bias, at most WIDTH_MAX; of the head n_outputs
    bias of a layer     (K,)         N is n_features for the first layer, else the K of the layer before
    weight of a delta   (N, K)       as the weight of the only layer
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import safetensors
from numpy.typing import NDArray

from service.errors import ArtifactError
from service.store.artifact.manifest import Manifest

Array = NDArray[np.floating[Any]]
Form = tuple[str, tuple[int, ...]]

# A prediction has the activations of 64 rows of two layers in memory, 8 MiB of float32 at this width.
WIDTH_MAX: Final = 1 << 14


def parse_tensors(raw: bytes, manifest: Manifest) -> dict[str, Array]:
    """Return views into the bytes of a safetensors file; the library checks its header, sizes and overlaps.

    Raises:
        ArtifactError: It is not such a file, or its tensors are not those that the manifest names.
    """
    try:
        entries = dict(safetensors.deserialize(raw))
    except safetensors.SafetensorError:
        raise ArtifactError("model.safetensors is not a whole safetensors file") from None
    # Before any array is made: NumPy has other errors for a hundred dimensions, or for an unknown type.
    _check_forms(
        manifest, {name: (_dtype_name(entry["dtype"]), tuple(entry["shape"])) for name, entry in entries.items()}
    )
    dtype = np.dtype(manifest.dtype).newbyteorder("<")
    return {name: np.frombuffer(entry["data"], dtype).reshape(entry["shape"]) for name, entry in entries.items()}


def checked_copies(manifest: Manifest, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return read-only copies of a manifest's tensors, in its order.

    Raises:
        ArtifactError: They are not those that the manifest names, or have a number that is not finite.
    """
    _check_forms(manifest, {name: (tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()})
    return {name: _finite_copy(name, tensors[name], manifest.dtype) for name in manifest.tensor_names}


def _dtype_name(code: str) -> str:
    return {"F32": "float32", "F64": "float64"}.get(code, code)


def _check_forms(manifest: Manifest, forms: Mapping[str, Form]) -> None:
    """Compare each tensor's (dtype, shape), by its name, with the manifest."""
    if forms.keys() != set(manifest.tensor_names):
        raise ArtifactError("the tensors must be exactly those that the layers of model.json name")
    widths = [_width(layer.bias, forms[layer.bias][1]) for layer in manifest.hidden]
    for name, expected in manifest.tensor_shapes(widths).items():
        dtype, shape = forms[name]
        if dtype != manifest.dtype:
            raise ArtifactError(f"tensor {name!a} is {dtype}, but model.json says {manifest.dtype}")
        if shape != expected:
            raise ArtifactError(f"tensor {name!a} has shape {_text(shape)}, but model.json asks for {expected}")


def _width(name: str, shape: tuple[int, ...]) -> int:
    """Return the number of activations of a hidden layer, from its bias."""
    if len(shape) != 1 or not 1 <= shape[0] <= WIDTH_MAX:
        raise ArtifactError(
            f"tensor {name!a} has shape {_text(shape)}, but a hidden layer's bias has 1 to {WIDTH_MAX} numbers"
        )
    return shape[0]


def _text(shape: tuple[int, ...]) -> str:
    return str(shape)[:64]


def _finite_copy(name: str, tensor: Array, dtype: str) -> Array:
    if not np.isfinite(tensor).all():
        raise ArtifactError(f"tensor {name!a} has a number that is not finite")
    copy = np.array(tensor, dtype=dtype, order="C")
    copy.setflags(write=False)
    return copy
