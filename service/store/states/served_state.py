"""Describe the state that a snapshot serves, as clients see it.

The fields of a snapshot keep the form that earlier releases wrote and verify: `weights_sha256` is the hash of all
tensors, also of a delta of zeros, and a mean over no rows is 0.
"""

from collections.abc import Mapping
from typing import Any, Final

from service.softmax.calibration import calibration_tensors
from service.softmax.parameters import Parameters
from service.softmax.sparse_parameters import SparseParameters
from service.store.artifact.hashing import hash_weights
from service.store.states.snapshots import Fields

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
        return str(fields["weights_sha256"])
    is_whole = len(parameters.effective_tensors()) == len(parameters.tensors())
    return str(fields["weights_sha256"]) if is_whole else hash_weights(parameters)


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
