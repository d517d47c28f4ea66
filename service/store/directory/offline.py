"""Access of the command line to an existing log and its data directory; nothing that is missing is created."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from service.errors import LogUnavailableError, ModelNotFoundError
from service.settings import Settings
from service.store.directory.data_directory import LOG_NAME, DataDirectory
from service.store.directory.directory_lock import refuse_unfinished_restore
from service.store.directory.log_opening import open_log
from service.store.log.events import Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.log.sqlite import SqliteLog


class StoredData(NamedTuple):
    """A data directory and an open log, which a running service may use too."""

    data: DataDirectory
    log: FeedbackLog


@contextmanager
def open_stored_data(settings: Settings, *, read_only: bool = False) -> Iterator[StoredData]:
    """Open the log that the settings name, and the data directory, until the end of the block.

    With a log in PostgreSQL the directory is that of one service which uses the log, and may be missing.

    Args:
        settings: Where both are.
        read_only: Whether to write nothing to a log in the data directory, which may be read-only then.

    Raises:
        LogUnavailableError: There is no log, or it cannot be used.
        LogError: The log cannot be used.
        SoftstepError: The packages of the log are not installed.
    """
    if settings.log is None:
        with open_directory(settings.data, read_only=read_only) as stored:
            yield stored
        return
    refuse_unfinished_restore(settings.data)
    data = DataDirectory(settings.data, create=False)
    with closing(open_log(settings, data)) as log:
        yield StoredData(data, log)


@contextmanager
def open_directory(path: Path, *, read_only: bool = False) -> Iterator[StoredData]:
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
    with closing(SqliteLog(data.log, read_only=read_only)) as log:
        yield StoredData(data, log)


def find_stream(log: FeedbackLog, name: str) -> Stream:
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
        raise ModelNotFoundError("no version of that model has a stream in this feedback log")
    versions = ", ".join(f"{stream.model}/{stream.version}" for stream in streams)
    raise ModelNotFoundError(f"name one version of the model; these have streams: {versions}")
