"""Find the artifact of a stream for a command, wherever it is.

    log in the data directory    the copy in the stream's folder
    log in PostgreSQL            the copy in the stream's folder, if it has the bytes that the log names; else the
                                 log's files; else the models directory, if the stream began with its version

Nothing is written.
"""

from contextlib import suppress

from service.errors import ArtifactError
from service.settings import Settings
from service.store.artifact.artifact import Artifact, decode_artifact, read_artifact
from service.store.artifact.fingerprint import fold_version_of
from service.store.artifact.version_folders import find_versions
from service.store.directory.artifact_transfer import fetch_artifact
from service.store.directory.bound_artifact import manifest_sha256, read_bound_artifact
from service.store.directory.offline import StoredData
from service.store.log.events import Stream


def read_stream_artifact(stored: StoredData, stream: Stream, settings: Settings) -> Artifact:
    """Return the artifact that a stream is bound to.

    Raises:
        ArtifactError: It is damaged or missing, or a later release began the stream.
        LogError: The log cannot be used now, or has other files than it should.
    """
    found = find_stream_artifact(stored, stream, settings)
    if found is None:
        raise ArtifactError(
            "neither the log nor the data directory has the artifact of the stream; "
            "name the models directory of a service with this log by SOFTSTEP_MODELS"
        )
    return found


def find_stream_artifact(stored: StoredData, stream: Stream, settings: Settings) -> Artifact | None:
    """Return the artifact that a stream is bound to, or None if it is missing, as it may be for a log in PostgreSQL.

    Raises:
        ArtifactError: It is damaged, or a later release began the stream.
        LogError: The log cannot be used now, or has other files than it should.
    """
    folder = stored.data.stream_folder(stream.model, stream.version)
    files = stored.log.files
    hashes = [] if files is None else files.artifact_of(stream.number)
    if files is None or (hashes and manifest_sha256(folder) == hashes[-1]):
        return read_bound_artifact(folder, stream, settings.artifact_bytes_max)
    if hashes:
        artifact = decode_artifact(fetch_artifact(files, hashes))
        if fold_version_of(artifact, stream.genesis) is None:
            raise ArtifactError("a later release began the stream; use that one")
        return artifact
    with suppress(ArtifactError):
        return read_bound_artifact(folder, stream, settings.artifact_bytes_max)
    return _read_loaded(stream, settings)


def _read_loaded(stream: Stream, settings: Settings) -> Artifact | None:
    """Return the version of the models directory, if the stream began with it."""
    with suppress(ArtifactError, OSError):
        found = find_versions(settings.models, {})[0].get((stream.model, stream.version))
        artifact = None if found is None else read_artifact(found.folder, settings.artifact_bytes_max)
        if artifact is not None and fold_version_of(artifact, stream.genesis) is not None:
            return artifact
    return None
