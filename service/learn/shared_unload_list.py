"""The list of unloaded models that all replicas of a shared log have, as one replica follows it.

The list is the fact MODELS_FACT of the log (process/unload_list.py has its form). A replica publishes it to its workers
before the first fork and whenever it has changed. A copy in the data directory counts while the log cannot be reached
at a start: a model that was unloaded is not served again because the database is down. A list that is damaged changes
nothing.
"""

from contextlib import suppress
from typing import Final

from service.errors import LogUnavailableError
from service.log_events import logger
from service.process.shared_memory import PAGE_BYTES, SharedMemory
from service.process.unload_list import UnloadList, publish_unload_list, read_unload_list
from service.store.directory.data_directory import DataDirectory
from service.store.filesystem import write_whole_file
from service.store.log.shared_facts import MODELS_FACT, SharedFacts


class SharedUnloadList:
    """Publishes the list of a shared log. One process at a time uses it: the parent before its first fork, the learner.

    Args:
        memory: The memory that the processes share.
        data: The data directory, which has the copy.
    """

    def __init__(self, memory: SharedMemory, data: DataDirectory) -> None:
        self._memory: Final = memory
        self._path: Final = data.unload_list

    def begin(self, facts: SharedFacts | None) -> None:
        """Publish the list before the first worker starts: that of the log, or the copy if it cannot be reached.

        A log that is not shared has none.
        """
        if facts is None:
            return
        try:
            changed = facts.read_changed({MODELS_FACT: 0})
        except LogUnavailableError:
            with suppress(OSError), self._path.open("rb") as file:
                self._publish(file.read(PAGE_BYTES + 1))
            return
        if MODELS_FACT in changed:
            self.follow(changed[MODELS_FACT][1])
        else:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def follow(self, text: bytes) -> None:
        """Publish the list that the log has now, and copy it; nothing is raised."""
        if not self._publish(text):
            return
        try:
            write_whole_file(self._path, [text], durable=True)
        except OSError as error:
            logger.event("unload_list_not_copied", reason=error.strerror)

    def _publish(self, text: bytes) -> bool:
        """Publish a list, if it is not published yet; return False if it is damaged."""
        try:
            UnloadList.parse(text)
        except ValueError as error:
            logger.event("unload_list_damaged", reason=str(error))
            return False
        if read_unload_list(self._memory)[1] != text:
            publish_unload_list(self._memory, text)
        return True
