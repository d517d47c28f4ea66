"""Describe the state that a snapshot serves, as clients see it.

The fields of a snapshot keep the form that earlier releases wrote and verify: `weights_sha256` is the hash of all
tensors, also of a delta of zeros, and a mean over no rows is 0.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from service.softmax.calibration import calibration_tensors
from service.softmax.parameters import Parameters
from service.softmax.sparse_parameters import SparseParameters
from service.softmax.sparse_weights import SparseWeights
from service.store.artifact.hashing import hash_weights
from service.store.artifact.mapped_artifact import BASE
from service.store.states.snapshots import Fields, Snapshot

# Counts of the progressive validation, and the means over what they count.
MEANS: Final = {
    "rows": ("loss", "accuracy"),
    "recent_rows": ("recent_loss", "recent_accuracy"),
    "steps": ("step_norm", "mean_step_norm"),
}


def served_sha256(parameters: Parameters, fields: Fields) -> str:
    """Return the hash of the function that a snapshot's parameters compute; see `hash_weights`.

    Args:
        parameters: The parameters.
        fields: The fields of the snapshot. Hashing takes long for large weights, so their hash is used if it is equal.
    """
    if isinstance(parameters, SparseParameters):
        sha256 = fields.get("weights_sha256")  # not of a snapshot that names a base: hashing takes long
        return hash_weights(parameters) if sha256 is None else str(sha256)
    is_whole = len(parameters.effective_tensors()) == len(parameters.tensors())
    return str(fields["weights_sha256"]) if is_whole else hash_weights(parameters)


def as_whole(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot that names a base as if it had whole weights and their hash; return others as they are.

    Raises:
        KeyError: A field or an array is missing.
        ValueError: The arrays contradict each other.
    """
    if BASE not in snapshot.fields:
        return snapshot
    changed = SparseParameters.from_arrays(snapshot.fields["head"], snapshot.arrays)
    whole = replace(changed, weights=SparseWeights(changed.weights.merged(), changed.n_logits))
    fields = {name: value for name, value in snapshot.fields.items() if name != BASE}
    return Snapshot({**fields, "weights_sha256": hash_weights(whole)}, whole.arrays())


def count_parameters(parameters: Parameters) -> int:
    """Return the number of parameters: every weight, bias, delta and calibration."""
    if isinstance(parameters, SparseParameters):
        numbers = calibration_tensors(parameters.calibration)
        return (parameters.n_features + 1) * parameters.n_logits + sum(tensor.size for tensor in numbers)
    return sum(tensor.size for tensor in parameters.tensors())


def describe_progress(progressive: Mapping[str, Any]) -> dict[str, Any]:
    """Return the progressive validation of a snapshot, with None for each mean over no rows or steps."""
    empty = {mean for count, means in MEANS.items() if not progressive.get(count) for mean in means}
    return {name: None if name in empty else value for name, value in progressive.items()}
