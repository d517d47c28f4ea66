"""Copy the files of a stream's artifact between a data directory and the files of a shared log, byte for byte."""

from collections.abc import Sequence
from typing import Final

from service.errors import ArtifactError
from service.store.artifact.artifact_folder import MANIFEST_BYTES_MAX, MANIFEST_NAME, TENSORS_NAME, write_version
from service.store.artifact.bounded_read import read_bounded
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Stream
from service.store.log.shared_files import SharedFiles

# The order in which a shared log has them.
ARTIFACT_FILES: Final = (TENSORS_NAME, MANIFEST_NAME)


def upload_artifact(folder: StreamFolder, shared: SharedFiles, stream: Stream, bytes_max: int) -> None:
    """Store the files of a stream's artifact, if its folder has them and the log has none.

    Args:
        folder: The stream's folder.
        shared: The files of the log.
        stream: The stream.
        bytes_max: Largest size of a tensor file.

    Raises:
        ArtifactError: A file cannot be read.
        LogError: The log cannot be used now.
    """
    if folder.artifact.exists() and not shared.artifact_of(stream.number):
        limits = {TENSORS_NAME: bytes_max, MANIFEST_NAME: MANIFEST_BYTES_MAX}
        shared.bind_artifact(
            stream.number, [read_bounded(folder.artifact, name, limits[name]) for name in ARTIFACT_FILES]
        )


def download_artifact(shared: SharedFiles | None, stream: Stream, folder: StreamFolder) -> bool:
    """Write the files of a stream's artifact to its folder, which has none; return whether the log has them.

    Raises:
        ArtifactError: The log lacks a part of them.
        LogError: The log cannot be used now, or has other files than it should.
        OSError: The disk failed; the artifact appears whole or not at all.
    """
    hashes = [] if shared is None else shared.artifact_of(stream.number)
    if shared is None or not hashes:
        return False
    write_version(folder.artifact, fetch_artifact(shared, hashes))
    return True


def fetch_artifact(shared: SharedFiles, hashes: Sequence[bytes]) -> dict[str, bytes]:
    """Return the files of a stream's artifact by name, the manifest last, given what `artifact_of` has returned.

    Raises:
        ArtifactError: The log lacks one.
        LogError: The log cannot be used now, or has other files than it should.
    """
    contents = {name: shared.get(sha256) for name, sha256 in zip(ARTIFACT_FILES, hashes, strict=True)}
    found = {name: content for name, content in contents.items() if content is not None}
    if len(found) < len(contents):
        raise ArtifactError("the log lacks the artifact of the stream; restore a backup of its database")
    return found
