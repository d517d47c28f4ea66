"""The state of a BASE event: what an earlier release has learned, in a form that every later fold can start from.

    "manifest"       the learned model as an artifact (export.py), without the fields of its file
    "tensors"        its tensors by name, each [dtype, [size, ...], base64 of its row-major bytes], but those that
                     learning leaves as they are, which the artifact has
    "paused"         whether learning was paused
    "frozen"         null, or in shadow mode the served parameters: {"clips", "arrays" as the tensors}

Of sparse rows the tensors are `columns` (C,) and `weights` (C + 1, K), the bias first: the columns in which the model
differs from the bound artifact. The arrays of shadow mode have the same form. There is one field more:

    "added_classes"  the number of classes of each addition, in order; in every column a new class has the mean weight
                     of the others (softmax/added_classes.py)

Every release can start from an artifact. It answers with the same bits. What a rule keeps beside it (its sums) and the
counts of the progressive validation start again, and learned rows count as training rows.
"""

import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtifactError, PayloadError
from service.learn.frozen_parameters import FrozenParameters
from service.softmax.parameters import Parameters
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import sparse_parameters
from service.store.states.snapshots import Arrays, Snapshot

DTYPES: Final = ("<f4", "<f8", "<i4")


class FoldStart(NamedTuple):
    """The artifact that a fold starts from, and what it serves at first.

    Attributes:
        artifact: The artifact.
        paused: Whether learning is paused.
        frozen: The parameters that shadow mode serves, or None.
        added_classes: The classes that were added to the bound artifact before, by addition.
    """

    artifact: Artifact
    paused: bool = False
    frozen: Parameters | None = None
    added_classes: tuple[int, ...] = ()


def encode_state(bound: Artifact, start: FoldStart, checkpoint: Snapshot) -> dict[str, Any]:
    """Return the state of a checkpoint as JSON values.

    Args:
        bound: The artifact that the stream is bound to.
        start: What the fold that wrote the checkpoint started from.
        checkpoint: The checkpoint.

    Raises:
        KeyError: The checkpoint lacks a part.
        ValueError: Its arrays contradict each other.
    """
    fields, arrays = checkpoint.fields, checkpoint.arrays
    scalars = fields["scalars"]
    clips = scalars["frozen_clips"]
    state = {"manifest": fields["manifest"], "paused": scalars["paused"]}
    frozen = _arrays_below(arrays, "frozen.")
    if not bound.has_sparse_rows:
        state["tensors"] = _encode_arrays(_arrays_below(arrays, "artifact."))
    else:
        added = *start.added_classes, *scalars["added_classes"]
        learned = sparse_parameters(start.artifact, scalars["added_classes"]).with_columns(arrays)
        state |= {"tensors": _encode_arrays(FrozenParameters(bound, learned).arrays(added)), "added_classes": added}
        if clips is not None:
            served = FrozenParameters.restore(start.artifact, frozen, scalars).parameters
            frozen = FrozenParameters(bound, served).arrays(added)
    return state | {"frozen": None if clips is None else {"clips": clips, "arrays": _encode_arrays(frozen)}}


def decode_state(bound: Artifact, state: Mapping[str, Any]) -> FoldStart:
    """Return what a fold starts from, given the state of a BASE.

    Args:
        bound: The artifact that the stream is bound to.
        state: The state as `encode_state` returned it.

    Raises:
        ArtifactError: It is not such a state, or this release cannot start from it.
    """
    try:
        added = tuple(state["added_classes"]) if bound.has_sparse_rows else ()
        tensors = _learned_tensors(bound, _decode_arrays(state["tensors"]), added)
        artifact = Artifact.from_fields(state["manifest"], bound.fixed_tensors | tensors)
        frozen, served = state["frozen"], None
        if frozen is not None:
            scalars = {"frozen_clips": frozen["clips"], "added_classes": added}
            served = FrozenParameters.restore(bound, _decode_arrays(frozen["arrays"]), scalars).parameters
        return FoldStart(artifact, state["paused"], served, added)
    except (KeyError, TypeError, ValueError, PayloadError) as error:
        raise ArtifactError("this release cannot start from the state of the base") from error


def _learned_tensors(
    bound: Artifact, tensors: dict[str, NDArray[Any]], added_classes: Sequence[int]
) -> dict[str, NDArray[Any]]:
    """Return the tensors of the weights; those of sparse rows have all columns."""
    if not bound.has_sparse_rows:
        return tensors
    learned = sparse_parameters(bound, added_classes).with_columns(tensors)
    return dict(zip(bound.manifest.weight_names, learned.weights.to_matrix(), strict=True))


def _arrays_below(arrays: Arrays, prefix: str) -> Arrays:
    """Return the arrays whose names start with a prefix, named without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _encode_arrays(arrays: Arrays) -> dict[str, list[Any]]:
    """Encode arrays as JSON values."""
    return {name: _encode_array(array) for name, array in arrays.items()}


def _encode_array(array: NDArray[Any]) -> list[Any]:
    stored = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return [stored.dtype.str, list(stored.shape), binascii.b2a_base64(stored.tobytes(), newline=False).decode()]


def _decode_arrays(encoded: Mapping[str, list[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays that `_encode_arrays` encoded, in the machine's byte order."""
    arrays = {}
    for name, (dtype, shape, text) in encoded.items():
        if dtype not in DTYPES:
            raise PayloadError("a base may hold arrays of float32, float64 and int32 only")
        array = np.frombuffer(binascii.a2b_base64(text), dtype).reshape(shape)
        arrays[name] = array.astype(array.dtype.newbyteorder("="))
    return arrays
