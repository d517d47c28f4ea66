"""Migrations: copy a feedback log between a data directory and PostgreSQL, in either direction.

<target>/.migrate.partial/log.sqlite    the copy, which is renamed to log.sqlite once it is complete and verified

A database hides its copy in the same way (log/postgres_copy.py). A migration that was killed at any point is continued
by the next one of the same source, or begins again if the source has changed in another way than by further events. A
target that has the events of the source already is left as it is.

No service may use the source or the target: a data directory is locked, and a database must have no live replicas.
Streams keep their numbers, seqs and hashes, so checkpoints and snapshots that name them stay valid.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Final, Protocol

from service.errors import LogUnavailableError
from service.store.directory.artifact_transfer import download_artifact, upload_artifact
from service.store.directory.backup_files import WAL_SUFFIXES, copy_stream_files, write_marks
from service.store.directory.data_directory import LOG_NAME, DataDirectory
from service.store.directory.directory_lock import acquire_lock
from service.store.directory.keyfile import merge_keys, read_key_file, write_key_file
from service.store.directory.offline import StoredData
from service.store.filesystem import make_folder, sync_folder, sync_tree
from service.store.log.events import Stream
from service.store.log.log_copy import CopyResult, CopyStep, LogContents, LogTarget, copy_log
from service.store.log.log_rows import StreamHead
from service.store.log.shared_files import SharedFiles
from service.store.log.sqlite import SqliteLog
from service.store.log.sqlite_copy import SqliteTarget, read_sqlite

PARTIAL_NAME: Final = ".migrate.partial"


class MigrationEnd(Protocol):
    """One end of a migration."""

    def refuse_services(self) -> None:
        """Refuse a log that a service uses, and keep services away where that is possible.

        Raises:
            LogError: A service uses the log, or it cannot be read.
        """

    def source(self) -> AbstractContextManager[LogContents]:
        """Provide the log's contents as of one moment, until the end of the block.

        Raises:
            LogError: There is no complete log, or it cannot be read.
        """

    def target(self) -> LogTarget:
        """Return the log to be written."""

    def read_heads(self) -> list[StreamHead]:
        """Return the heads of the log that is there, none if there is none."""

    def shared_files(self) -> SharedFiles | None:
        """Return the files that replicas share, or None for a log that has none."""

    def install(self, files: DataDirectory | None, shared: SharedFiles | None, bytes_max: int) -> list[Stream]:
        """Put a finished copy in its place.

        Args:
            files: A data directory with artifacts and checkpoints of the streams.
            shared: The files of the source.
            bytes_max: Largest size of a tensor file.

        Returns:
            The streams whose artifact is not there.
        """

    def read_token_keys(self) -> bytes | None:
        """Return the text of the keys of feedback tokens, or None if there are none."""

    def write_token_keys(self, text: bytes) -> None:
        """Replace the keys of feedback tokens."""

    def erase_forgotten(self) -> None:
        """Remove the payloads of forgotten events from the files of the log."""

    def close(self) -> None:
        """Release what the end uses."""


class DirectoryEnd:
    """A data directory that a log is copied from or to; it is created if it is missing.

    Args:
        path: The directory.

    Raises:
        OSError: It cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.data = DataDirectory(path)
        self._partial = path / PARTIAL_NAME
        self._lock: IO[bytes] | None = None
        self._target: SqliteTarget | None = None

    def refuse_services(self) -> None:
        """See MigrationEnd. The directory is locked until it is closed."""
        self._lock = acquire_lock(self.data)

    def source(self) -> AbstractContextManager[LogContents]:
        """See MigrationEnd."""
        return read_sqlite(self.data.log)

    def target(self) -> LogTarget:
        """See MigrationEnd."""
        make_folder(self._partial)
        self._target = SqliteTarget(self._partial / LOG_NAME)
        return self._target

    def read_heads(self) -> list[StreamHead]:
        """See MigrationEnd."""
        if not self.data.log.exists():
            return []
        with read_sqlite(self.data.log) as contents:
            return contents.read_heads()

    def shared_files(self) -> None:
        """See MigrationEnd."""

    def install(self, files: DataDirectory | None, shared: SharedFiles | None, bytes_max: int) -> list[Stream]:
        """See MigrationEnd. The log gets its name at last, when all else is on disk."""
        copy = self._partial / LOG_NAME
        is_new = copy.exists()
        log = SqliteLog(copy if is_new else self.data.log)
        try:
            stored = StoredData(self.data, log)
            missing = [
                stream for stream in log.list_streams() if not _take_files(files, shared, stored, stream, bytes_max)
            ]
            if is_new:
                write_marks(self.data, log)
                log.empty_wal()
        finally:
            log.close()
        if is_new:
            for suffix in (*WAL_SUFFIXES, ""):
                Path(f"{self.data.log}{suffix}").unlink(missing_ok=True)
            sync_tree(self.data.path)
            copy.rename(self.data.log)
            sync_folder(self.data.path)
        shutil.rmtree(self._partial, ignore_errors=True)
        return missing

    def read_token_keys(self) -> bytes | None:
        """See MigrationEnd."""
        return read_key_file(self.data.token_key)

    def write_token_keys(self, text: bytes) -> None:
        """See MigrationEnd."""
        write_key_file(self.data.token_key, text)

    def erase_forgotten(self) -> None:
        """See MigrationEnd. The copy was made with `secure_delete`, and has no write-ahead log when it is finished."""

    def close(self) -> None:
        """See MigrationEnd."""
        if self._target is not None:
            self._target.close()
        if self._lock is not None:
            self._lock.close()


class Migration:
    """One migration.

    Args:
        source: The log to copy.
        target: The log to make.
        files: A data directory with artifacts and checkpoints of the source's streams, if there is one.
        bytes_max: Largest size of a tensor file.
        copy_keys: Copies the API keys. It is called once both ends can be used, before the log of the target is
            complete, so that no service can begin without its keys.

    Attributes:
        result: What was copied.
        was_there: Whether the target had all events already.
        missing: The streams whose artifact is not at the target, where it belongs.
    """

    def __init__(
        self,
        source: MigrationEnd,
        target: MigrationEnd,
        files: DataDirectory | None,
        bytes_max: int,
        copy_keys: Callable[[], None],
    ) -> None:
        self._source = source
        self._target = target
        self._files = files
        self._bytes_max = bytes_max
        self._copy_keys = copy_keys
        self.result = CopyResult()
        self.was_there = False
        self.missing: list[Stream] = []

    def run(self) -> Iterator[CopyStep]:
        """Copy the log, and yield the progress.

        Raises:
            LogError: A service uses one of the logs, the target has other events, or a log cannot be used.
            ArtifactError: An artifact of the source is damaged.
            KeyFileError: The keys of feedback tokens are damaged.
            OSError: The disk failed.
        """
        source, target, result = self._source, self._target, self.result
        source.refuse_services()
        target.refuse_services()
        with source.source() as contents:
            result.heads = contents.read_heads()
            there = _positions(target.read_heads())
            self.was_there = there != [] and there == _positions(result.heads)
            if there and not self.was_there:
                raise LogUnavailableError("the target has a log with other events; name an empty one")
            self._copy_keys()
            if not self.was_there:
                yield from copy_log(contents, target.target(), result)
        if result.forgotten:
            target.erase_forgotten()
        self.missing = target.install(self._files, source.shared_files(), self._bytes_max)
        shared = target.shared_files()
        if shared is not None and self._files is not None:
            for stream in (head.stream for head in result.heads):
                folder = self._files.stream_folder(stream.model, stream.version)
                upload_artifact(folder, shared, stream, self._bytes_max)
        keys = source.read_token_keys()
        if keys is not None:
            target.write_token_keys(merge_keys(keys, target.read_token_keys()))


def _positions(heads: list[StreamHead]) -> list[tuple[Stream, int, bytes]]:
    """Return where the streams that have events end."""
    return [(head.stream, head.seq, head.hash) for head in heads if head.seq > 0]


def _take_files(
    files: DataDirectory | None, shared: SharedFiles | None, target: StoredData, stream: Stream, bytes_max: int
) -> bool:
    """Copy the artifact and the checkpoint of a stream unless they are there; return whether the artifact is then."""
    folder = target.data.stream_folder(stream.model, stream.version)
    if folder.artifact.exists():
        return True
    if files is None or not files.stream_folder(stream.model, stream.version).artifact.exists():
        return download_artifact(shared, stream, folder)
    copy_stream_files(files, target, stream, bytes_max)
    return True
