"""Load an artifact to serve it: read it, and check that this release computes what its maker expects."""

from pathlib import Path
from typing import Final

import numpy as np

from service.errors import ArtifactError, TooLargeError, UnacceptableError
from service.fields.column_blocks import FieldLimits
from service.softmax.arrays import Floats
from service.softmax.sparse_rows import SparseRows
from service.store.artifact.artifact import Artifact, read_artifact
from service.store.artifact.field_layout import WIDEST
from service.store.artifact.model_factory import build_model
from service.store.artifact.reasons import shorten_reason

# As the setting of a service, SOFTSTEP_ARTIFACT_BYTES_MAX, has by default.
TENSOR_BYTES_MAX: Final = 2 << 30
# Above the differences of float32 arithmetic between libraries, and below those of a row that was read otherwise.
TOLERANCE: Final = 1e-4


def load_artifact(directory: Path, bytes_max: int = TENSOR_BYTES_MAX, limits: FieldLimits = WIDEST) -> Artifact:
    """Read and verify an artifact that is to be served, and compute its examples.

    Args:
        directory: The folder with its two files.
        bytes_max: Largest size of `model.safetensors`; a service passes its setting.
        limits: The limits of the fields; a service passes its settings.

    Raises:
        ArtifactError: As for `read_artifact`, or an example is no row, or its probabilities are others.
    """
    artifact = read_artifact(directory, bytes_max, limits)
    check_examples(artifact)
    return artifact


def check_examples(artifact: Artifact) -> None:
    """Raise ArtifactError unless each example is a row, and has the probabilities that its maker expects."""
    examples, encoder = artifact.manifest.examples or (), artifact.row_encoder
    if not examples or encoder is None:
        return
    rows = [example.row if isinstance(example.row, dict) else list(example.row) for example in examples]
    try:
        encoded = encoder.encode_objects(rows)
        P = _predict(artifact, encoder.to_model_rows(encoded.rows, artifact.weights.dtype))
    except (UnacceptableError, TooLargeError, ValueError) as error:
        raise ArtifactError(shorten_reason(f"an example is no row of the model: {error}")) from None
    expected = np.array([example.probabilities for example in examples])
    off = np.abs(P - expected).max(axis=1)
    worst = int(off.argmax())
    if off[worst] > TOLERANCE:
        raise ArtifactError(
            f"a probability of example {worst} is off by {off[worst]:.2g}, and at most {TOLERANCE:g} is allowed"
        )


def _predict(artifact: Artifact, rows: SparseRows) -> Floats:
    """Return the probabilities (B, C) of encoded rows."""
    return build_model(artifact).predict(rows if artifact.has_sparse_rows else rows.to_matrix(artifact.n_features))
