"""Bind a stream that another replica began to the artifact in this service's models directory."""

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits
from service.settings import Settings
from service.store.artifact.artifact import read_artifact
from service.store.artifact.fingerprint import fold_version_of
from service.store.artifact.version_folders import find_versions
from service.store.directory.bound_artifact import store_artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Stream


def bind_loaded_artifact(stream: Stream, folder: StreamFolder, settings: Settings) -> None:
    """Copy the artifact of a stream from the models directory, unless the stream's folder has it already.

    Raises:
        ArtifactError: The directory has no such version, or another one than the stream began with.
        OSError: The disk failed; a copy appears whole or not at all.
    """
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
