"""The files of one worker: the feedback log, the worker's marks, and the artifacts of streams."""

from typing import Final

from service.errors import LogUnavailableError
from service.process.heap import trim_heap
from service.process.shared_memory import SharedMemory
from service.serve.log.submissions import LearningVersion
from service.serve.models.registry import ModelRegistry
from service.settings import Settings
from service.store.artifact.artifact import encode_artifact
from service.store.directory.ack_marks import AckMarks
from service.store.directory.bound_artifact import store_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.directory.log_opening import open_log
from service.store.log.events import Position
from service.store.log.feedback_log import FeedbackLog
from service.store.log.shared_files import ReadFiles


class WorkerLog:
    """One worker's part of the data directory. Use it on the writer's thread only.

    Args:
        registry: The served models.
        data: The data directory.
        memory: The shared memory, which counts disk faults.
        slot: The worker's slot.
        settings: The limits.
    """

    def __init__(
        self, registry: ModelRegistry, data: DataDirectory, memory: SharedMemory, slot: int, settings: Settings
    ) -> None:
        self._registry: Final = registry
        self._data: Final = data
        self._faults: Final = memory.disk_faults
        self._slot: Final = slot
        self._settings: Final = settings
        self._marks: AckMarks | None = None

    def open_log(self) -> FeedbackLog:
        """Open the log and the worker's marks, and return the log. A shared log has no marks: it outlives this disk."""
        log = open_log(self._settings, self._data, self._faults)
        if self._marks is not None:
            self._marks.close()
        if not log.is_shared:
            self._marks = AckMarks(self._data.mark_file(self._slot), [stream.number for stream in log.list_streams()])
        return log

    def bind_artifact(self, source: LearningVersion) -> ReadFiles | None:
        """Store a copy of a source's artifact in the folder of its stream.

        Returns:
            None; for a shared log, what returns the files that begin the stream. The learner of each replica stores
            those with which the stream has begun.

        Raises:
            LogUnavailableError: The version is not served, or the files cannot be written.
        """
        served = self._registry.now.served.get((source.model, source.version))
        if served is None:
            raise LogUnavailableError("The model version is no longer served; send the event again.")
        if self._settings.log is not None:
            return lambda: tuple(encode_artifact(served.artifact).values())
        try:
            store_artifact(self._data.stream_folder(source.model, source.version), served.artifact)
        except OSError as reason:
            raise LogUnavailableError("The model's files cannot be stored; try again later.") from reason
        trim_heap()  # the files of the artifact were made in memory
        return None

    def mark_committed(self, stream: int, position: Position) -> None:
        """Record the last committed position of a stream."""
        if self._marks is not None:
            self._marks.write_mark(stream, position)
