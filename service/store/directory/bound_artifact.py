"""The artifact that a stream is bound to: a copy, because it defines what the stream's events mean.

The copy is made once, when the stream begins. Later changes in models/ are reported, and do not change the stream.
"""

import hashlib
from contextlib import suppress
from typing import NamedTuple

from service.errors import ArtifactError, ArtifactExistsError
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.artifact_folder import MANIFEST_BYTES_MAX, MANIFEST_NAME
from service.store.artifact.bounded_read import read_bounded
from service.store.artifact.fingerprint import fold_version_of
from service.store.artifact.hashing import hash_tensors
from service.store.artifact.manifest import Manifest
from service.store.artifact.manifest_json import parse_manifest
from service.store.directory.data_directory import StreamFolder
from service.store.filesystem import sync_folder
from service.store.log.events import Stream


class BoundArtifact(NamedTuple):
    """A stream's artifact.

    Attributes:
        artifact: The artifact that the stream began with, which is served: the one in models/ if that is equal.
        differs: Whether the artifact in models/ is a different one now.
    """

    artifact: Artifact
    differs: bool


def bind_artifact(folder: StreamFolder, artifact: Artifact, bytes_max: int) -> BoundArtifact:
    """Return the artifact that a stream is bound to, as `store_artifact` leaves it.

    Args:
        folder: The stream's folder.
        artifact: The version as it is in models/ now.
        bytes_max: Largest size of a tensor file.

    Raises:
        ArtifactError: The copy is damaged.
        OSError: The disk failed; a copy appears whole or not at all.
    """
    store_artifact(folder, artifact)
    copy = read_artifact(folder.artifact, bytes_max, artifact.limits)
    differs = _content(copy) != _content(artifact)
    return BoundArtifact(copy if differs else artifact, differs)


def store_artifact(folder: StreamFolder, artifact: Artifact) -> None:
    """Bind a stream that begins to an artifact; one that has begun stays bound to its own.

    Raises:
        OSError: The disk failed; a copy appears whole or not at all.
    """
    if not folder.artifact.exists():
        with suppress(ArtifactExistsError):  # another worker was first
            write_artifact(folder.artifact, artifact)
    for path in (folder.path, folder.path.parent):  # the worker that was first may not have come that far
        sync_folder(path)


def read_bound_artifact(folder: StreamFolder, stream: Stream, bytes_max: int) -> Artifact:
    """Read the artifact that a stream is bound to, and check that the stream began with it.

    Raises:
        ArtifactError: It is damaged or missing, or the stream began with another artifact or by a later release.
    """
    if not folder.path.exists():
        raise ArtifactError("the data directory has no files of the stream; name the one of a service with this log")
    artifact = read_artifact(folder.artifact, bytes_max)
    if fold_version_of(artifact, stream.genesis) is None:
        raise ArtifactError("the stream began with another artifact, or by a later release; restore a backup")
    return artifact


def manifest_sha256(folder: StreamFolder) -> bytes | None:
    """Return the hash of the manifest in a stream's folder, which names that of the tensors; None without one."""
    with suppress(ArtifactError):
        return hashlib.sha256(read_bounded(folder.artifact, MANIFEST_NAME, MANIFEST_BYTES_MAX)).digest()
    return None


def read_bound_manifest(folder: StreamFolder) -> Manifest:
    """Read the manifest of the artifact that a stream is bound to, without its tensors.

    Raises:
        ArtifactError: It is damaged or missing.
    """
    return parse_manifest(read_bounded(folder.artifact, MANIFEST_NAME, MANIFEST_BYTES_MAX))


def _content(artifact: Artifact) -> tuple[object, ...]:
    """Return what distinguishes artifacts; the bytes of equal artifacts' files differ from writer to writer."""
    shapes = [tensor.shape for tensor in artifact.tensors.values()]
    hashes = artifact.weights_sha256, hash_tensors(artifact.fixed_tensors.values())
    return artifact.manifest.model_copy(update={"tensors_sha256": ""}), hashes, shapes
