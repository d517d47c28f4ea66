"""Access of the command line to an existing data directory; nothing that is missing is created."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from service.errors import LogUnavailableError, ModelNotFoundError
from service.store.directory.data_directory import LOG_NAME, DataDirectory
from service.store.directory.directory_lock import refuse_unfinished_restore
from service.store.log.events import Stream
from service.store.log.sqlite import SqliteLog


class StoredData(NamedTuple):
    """A data directory and its open log, which a running service may use too."""

    data: DataDirectory
    log: SqliteLog


@contextmanager
def open_stored_data(path: Path, *, read_only: bool = False) -> Iterator[StoredData]:
    """Open a data directory and its log until the end of the block.

    Args:
        path: The directory.
        read_only: Whether to write nothing to it, which also works if it is read-only.

    Raises:
        LogUnavailableError: There is no log, or it cannot be used.
        LogError: As for `SqliteLog`.
    """
    refuse_unfinished_restore(path)
    if not (path / LOG_NAME).is_file():
        raise LogUnavailableError("the data directory has no feedback log; name the one that the service uses")
    try:
        data = DataDirectory(path, create=not read_only)
    except OSError as error:
        raise LogUnavailableError(f"the data directory cannot be used: {error.strerror}") from error
    log = SqliteLog(data.log, read_only=read_only)
    try:
        yield StoredData(data, log)
    finally:
        log.close()


def find_stream(log: SqliteLog, name: str) -> Stream:
    """Return the stream of "model/version", or of "model" if only one of its versions has a stream.

    Raises:
        ModelNotFoundError: There is none, or there are several; the message lists them.
    """
    model, slash, version = name.partition("/")
    streams = [stream for stream in log.list_streams() if stream.model == model]
    wanted = [stream for stream in streams if not slash or str(stream.version) == version]
    if len(wanted) == 1:
        return wanted[0]
    if not streams:
        raise ModelNotFoundError("no version of that model has a stream in this data directory")
    versions = ", ".join(f"{stream.model}/{stream.version}" for stream in streams)
    raise ModelNotFoundError(f"name one version of the model; these have streams: {versions}")
