"""The lock of a data directory: one instance uses it at a time."""

import os
import threading

import pytest

from service.errors import LogUnavailableError
from service.store.directory.data_directory import DataDirectory
from service.store.directory.directory_lock import acquire_lock


def test_one_instance_uses_it(data: DataDirectory) -> None:
    """A second instance is refused until the first one releases the lock."""
    held = acquire_lock(data)
    with pytest.raises(LogUnavailableError):
        acquire_lock(DataDirectory(data.path))
    held.close()
    acquire_lock(data).close()


def test_an_instance_that_ends_is_waited_for(data: DataDirectory) -> None:
    """An instance waits for the lock of one that exits, whose workers may outlive it by a moment."""
    held = acquire_lock(data)
    closing = threading.Timer(0.2, held.close)
    closing.start()
    acquire_lock(DataDirectory(data.path), seconds=20).close()
    closing.join()


def test_a_forked_child_keeps_the_lock(data: DataDirectory) -> None:
    """A killed parent does not release the lock while its children write."""
    reading, writing = os.pipe()
    with acquire_lock(data):
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    with pytest.raises(LogUnavailableError):
        acquire_lock(data)
    os.close(writing)
    os.waitpid(pid, 0)
    acquire_lock(data).close()
    os.close(reading)
