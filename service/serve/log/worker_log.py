"""What the writer's thread is given of the disk: the log, the marks, and the artifact that a stream is bound to."""

from typing import Final

from service.errors import LogUnavailableError
from service.process.shared_memory import SharedMemory
from service.serve.log.writer_thread import Source
from service.serve.models.registry import ModelRegistry
from service.settings import Settings
from service.store.directory.ack_marks import AckMarks
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Position
from service.store.log.feedback_log import FeedbackLog
from service.store.log.sqlite import SqliteLog


class WorkerLog:
    """One worker's part of the data directory; used on the writer's thread alone."""

    def __init__(
        self, live: ModelRegistry, data: DataDirectory, board: SharedMemory, slot: int, settings: Settings
    ) -> None:
        self._live: Final = live
        self._data: Final = data
        self._faults: Final = board.disk_faults
        self._slot: Final = slot
        self._settings: Final = settings
        self._marks: AckMarks | None = None

    def open_log(self) -> FeedbackLog:
        """The log, opened by this process, and with it the worker's marks."""
        settings = self._settings
        log = SqliteLog(
            self._data.log,
            self._faults,
            reserve_bytes=settings.disk_reserve_bytes,
            wal_bytes_max=settings.wal_bytes_max,
        )
        if self._marks is not None:
            self._marks.close()
        self._marks = AckMarks(self._data.mark_file(self._slot), [stream.number for stream in log.list_streams()])
        return log

    def bind_artifact(self, source: Source) -> None:
        """Keep a copy of the artifact that a stream is about, before its first event."""
        served = self._live.now.served.get((source.model, source.version))
        if served is None:
            raise LogUnavailableError("the model version is not served any more; send the event again")
        try:
            self._data.stream_folder(source.model, source.version).bind_artifact(
                served.artifact, self._settings.artifact_bytes_max
            )
        except OSError as reason:
            raise LogUnavailableError("the model's files cannot be kept with its feedback; try again") from reason

    def mark_committed(self, stream: int, position: Position) -> None:
        """Note how far a stream is committed."""
        if self._marks is not None:
            self._marks.write_mark(stream, position)
