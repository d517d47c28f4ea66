"""A data directory that is there already, as the command line finds it: nothing is made that is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from service.errors import ArtifactError, LogUnavailableError, ModelNotFoundError
from service.store.artifact.artifact import Artifact, read_artifact
from service.store.artifact.fingerprint import fold_version_of
from service.store.directory.data_directory import DataDirectory, StreamFolder, refuse_unfinished
from service.store.log.events import Stream
from service.store.log.sqlite import SqliteLog


class StoredData(NamedTuple):
    """What a data directory keeps: itself, and its log, which may be in use by a running service too."""

    data: DataDirectory
    log: SqliteLog


@contextmanager
def open_stored_data(path: Path) -> Iterator[StoredData]:
    """A data directory's log, open until the end of the block.

    Raises:
        LogUnavailableError: There is none, or it cannot be used.
        LogError: As for `SqliteLog`.
    """
    refuse_unfinished(path)
    if not (path / "log.sqlite").is_file():
        raise LogUnavailableError("the data directory holds no feedback log; name the one that the service uses")
    try:
        data = DataDirectory(path)
    except OSError as error:
        raise LogUnavailableError(f"the data directory cannot be used: {error.strerror}") from error
    log = SqliteLog(data.log)
    try:
        yield StoredData(data, log)
    finally:
        log.close()


def find_stream(log: SqliteLog, name: str) -> Stream:
    """The stream of "model/version", or of "model" where only one of its versions has a stream.

    Raises:
        ModelNotFoundError: There is none, or several; the message says which there are.
    """
    model, slash, version = name.partition("/")
    streams = [stream for stream in log.list_streams() if stream.model == model]
    wanted = [stream for stream in streams if not slash or str(stream.version) == version]
    if len(wanted) == 1:
        return wanted[0]
    if not streams:
        raise ModelNotFoundError("no version of that model has a stream in this data directory")
    versions = ", ".join(f"{stream.model}/{stream.version}" for stream in streams)
    raise ModelNotFoundError(f"say which version is meant: there are streams of {versions}")


def read_bound_artifact(folder: StreamFolder, stream: Stream, bytes_max: int) -> Artifact:
    """The artifact that a stream is bound to.

    Raises:
        ArtifactError: It is damaged or missing, or the stream was begun with another one, or by a later release.
    """
    artifact = read_artifact(folder.artifact, bytes_max)
    if fold_version_of(artifact, stream.genesis) is None:
        raise ArtifactError("it is not what the stream was begun with, or a later release began it")
    return artifact
