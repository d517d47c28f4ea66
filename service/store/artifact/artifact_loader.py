"""Load an artifact to serve it: read it, and check that this release computes what its maker expects."""

from pathlib import Path

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits
from service.store.artifact.artifact import Artifact, read_artifact


def load_artifact(directory: Path, bytes_max: int, limits: FieldLimits) -> Artifact:
    """Read and verify an artifact that is to be served.

    Args:
        directory: The folder with its two files.
        bytes_max: Largest size of `model.safetensors`.
        limits: The limits of the fields.

    Raises:
        ArtifactError: As for `read_artifact`, or the model cannot be served.
    """
    artifact = read_artifact(directory, bytes_max, limits)
    if artifact.has_sparse_rows:
        raise ArtifactError("sparse fields are not served yet")
    return artifact
