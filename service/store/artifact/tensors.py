"""Validation of tensors against a manifest: their names, dtypes and shapes, and that every number is finite.

The manifest defines the number of features and logits, and the biases define the widths of the hidden layers. The
inputs of each layer are the outputs of the one before it:

    tensor              shape        K is
    weight of a layer   (N, K)       of a hidden layer the size of its bias, at most WIDTH_MAX; of the head n_outputs
    bias of a layer     (K,)         N is n_features for the first layer, else the K of the layer before
    weight of a delta   (N, K)       as the weight of the only layer
    support             (N,)         no number is negative
    tensor of a field                float64, int64 or uint8, of the shape that fields/field_records.py gives

N is n_features: the number of features, or of the columns of all fields. Fields are laid out before any array is made,
from the header of the file alone.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import safetensors
from numpy.typing import NDArray

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits
from service.store.artifact.field_layout import check_fields
from service.store.artifact.manifest import Manifest, TensorForm

Array = NDArray[Any]
# The dtypes of safetensors that a tensor may have.
DTYPES: Final = {"F32": "float32", "F64": "float64", "I64": "int64", "U8": "uint8"}

# A prediction has the activations of 64 rows of two layers in memory, 8 MiB of float32 at this width.
WIDTH_MAX: Final = 1 << 14


def parse_tensors(raw: bytes, manifest: Manifest, limits: FieldLimits) -> dict[str, Array]:
    """Return views into the bytes of a safetensors file; the library checks its header, sizes and overlaps.

    Args:
        raw: The file.
        manifest: The manifest.
        limits: The limits of the fields.

    Raises:
        ArtifactError: It is not such a file, or its tensors are not those that the manifest names.
    """
    try:
        entries = dict(safetensors.deserialize(raw))
    except safetensors.SafetensorError:
        raise ArtifactError("model.safetensors is not a whole safetensors file") from None
    # Before any array is made: NumPy has other errors for a hundred dimensions, or for an unknown type.
    forms = {
        name: TensorForm(DTYPES.get(entry["dtype"], entry["dtype"]), tuple(entry["shape"]))
        for name, entry in entries.items()
    }
    _check_forms(manifest, forms, limits)
    return {
        name: np.frombuffer(entry["data"], np.dtype(forms[name].dtype).newbyteorder("<")).reshape(entry["shape"])
        for name, entry in entries.items()
    }


def checked_copies(manifest: Manifest, tensors: Mapping[str, Array], limits: FieldLimits) -> dict[str, Array]:
    """Return read-only copies of a manifest's tensors, in its order.

    Raises:
        ArtifactError: They are not those that the manifest names, or have a number that is not finite.
    """
    forms = {name: TensorForm(tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()}
    _check_forms(manifest, forms, limits)
    copies = {name: _finite_copy(name, tensors[name]) for name in manifest.tensor_names}
    support = None if manifest.training is None else manifest.training.support
    if support is not None and copies[support].min() < 0:
        raise ArtifactError(f"tensor {support!a} has a negative number, but squares are not negative")
    return copies


def _check_forms(manifest: Manifest, forms: Mapping[str, TensorForm], limits: FieldLimits) -> None:
    """Compare the dtype and shape of each tensor, by its name, with the manifest."""
    if forms.keys() != set(manifest.tensor_names):
        raise ArtifactError("the tensors must be exactly those that the layers of model.json name")
    sizes = {name: form.shape for name, form in forms.items()}
    check_fields(manifest, sizes, limits)
    widths = [_width(layer.bias, sizes[layer.bias]) for layer in manifest.hidden]
    for name, expected in manifest.tensor_forms(widths, sizes).items():
        dtype, shape = forms[name]
        if dtype != expected.dtype:
            raise ArtifactError(f"tensor {name!a} is {dtype}, but model.json says {expected.dtype}")
        if shape != expected.shape:
            raise ArtifactError(f"tensor {name!a} has shape {_text(shape)}, but model.json asks for {expected.shape}")


def _width(name: str, shape: tuple[int, ...]) -> int:
    """Return the number of activations of a hidden layer, from its bias."""
    if len(shape) != 1 or not 1 <= shape[0] <= WIDTH_MAX:
        raise ArtifactError(
            f"tensor {name!a} has shape {_text(shape)}, but a hidden layer's bias has 1 to {WIDTH_MAX} numbers"
        )
    return shape[0]


def _text(shape: tuple[int, ...]) -> str:
    return str(shape)[:64]


def _finite_copy(name: str, tensor: Array) -> Array:
    if not np.isfinite(tensor).all():
        raise ArtifactError(f"tensor {name!a} has a number that is not finite")
    copy = np.array(tensor, dtype=tensor.dtype.newbyteorder("="), order="C")
    copy.setflags(write=False)
    return copy
