"""Bind a stream of a shared log to the artifact that it began with, on a machine that may not have it yet.

The log has the artifact's files, byte for byte. So the checkpoints of all replicas are equal, also in what they take
from the artifact without computing with it. A stream that came from another log has no files there until the first
replica that learns from it stores those of its models directory.
"""

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits
from service.settings import Settings
from service.store.artifact.artifact import read_artifact
from service.store.artifact.artifact_folder import MANIFEST_BYTES_MAX, MANIFEST_NAME, TENSORS_NAME, write_version
from service.store.artifact.bounded_read import read_bounded
from service.store.artifact.fingerprint import fold_version_of
from service.store.artifact.version_folders import find_versions
from service.store.directory.artifact_transfer import ARTIFACT_FILES, fetch_artifact
from service.store.directory.bound_artifact import manifest_sha256, store_artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Stream
from service.store.log.shared_files import SharedFiles


def bind_shared_artifact(stream: Stream, files: SharedFiles, folder: StreamFolder, settings: Settings) -> None:
    """Write the artifact of a stream to its folder, unless the folder has it already.

    Raises:
        ArtifactError: The log has no files of it, and the models directory has others than the stream began with.
        LogError: The log cannot be used now, or has other files than it should.
        OSError: The disk failed; a copy appears whole or not at all.
    """
    hashes = files.artifact_of(stream.number)
    bytes_max = settings.artifact_bytes_max
    if not hashes:
        _bind_loaded(stream, folder, settings)
        files.bind_artifact(stream.number, _read_files(folder, bytes_max))
    elif manifest_sha256(folder) != hashes[-1]:
        write_version(folder.artifact, fetch_artifact(files, hashes), overwrite=True)


def _read_files(folder: StreamFolder, bytes_max: int) -> list[bytes]:
    limits = {TENSORS_NAME: bytes_max, MANIFEST_NAME: MANIFEST_BYTES_MAX}
    return [read_bounded(folder.artifact, name, limits[name]) for name in ARTIFACT_FILES]


def _bind_loaded(stream: Stream, folder: StreamFolder, settings: Settings) -> None:
    """Copy the artifact of a stream from the models directory, unless the stream's folder has one."""
    if folder.artifact.exists():
        return
    found = find_versions(settings.models, {})[0].get((stream.model, stream.version))
    if found is None:
        raise ArtifactError("the models directory has no files of this version, which another replica serves")
    limits = FieldLimits(settings.fields_max, settings.columns_max, settings.entries_max)
    artifact = read_artifact(found.folder, settings.artifact_bytes_max, limits)
    if fold_version_of(artifact, stream.genesis) is None:
        raise ArtifactError("the stream began with other files than those in the models directory")
    store_artifact(folder, artifact)
