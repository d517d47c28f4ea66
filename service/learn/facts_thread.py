"""Follow the facts of a shared log in a thread of its own, so that a revoked key does not wait for a long fold."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service.access.log_keys import follows_keys
from service.errors import LogError
from service.learn.followed_facts import LOOK_SECONDS, FollowedFacts
from service.learn.followed_keys import FollowedKeys
from service.learn.shared_unload_list import SharedUnloadList
from service.log_events import logger
from service.log_limit import LineLimit
from service.process.shared_memory import SharedMemory
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.log.facts_opening import open_facts
from service.store.log.shared_facts import MODELS_FACT, SharedFacts

# How long the end of the process waits for a look; one at a database that does not answer is left alone.
END_SECONDS: Final = 0.1
THREAD_NAME: Final = "softstep-facts"


@contextmanager
def following_facts(settings: Settings, memory: SharedMemory) -> Iterator[None]:
    """Follow the API keys and the unloaded models of a shared log until the end of the block, with a connection for it.

    Args:
        settings: The log, the data directory and the file of keys.
        memory: The memory that the processes share.
    """
    if settings.log is None:
        yield
        return
    address, end = settings.log.get_secret_value(), threading.Event()

    def follow() -> None:
        with open_facts(settings, address, "softstep serve --log") as facts:
            followed, faults = followed_facts(settings, memory, facts), LineLimit()
            while not end.wait(LOOK_SECONDS):
                _look(followed, faults)

    thread = threading.Thread(target=follow, name=THREAD_NAME, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(END_SECONDS)


def followed_facts(settings: Settings, memory: SharedMemory, facts: SharedFacts) -> FollowedFacts:
    """Return what a service follows: the unloaded models, and the keys unless it has a file of its own."""
    unload_list = SharedUnloadList(memory, DataDirectory(settings.data))
    keys = FollowedKeys(settings.keys_path, memory.keys_unknown) if follows_keys(settings) else None
    return FollowedFacts(facts, {MODELS_FACT: unload_list.follow}, keys)


def _look(followed: FollowedFacts, faults: LineLimit) -> None:
    """Look once; a fault is logged, and stops nothing."""
    try:
        followed.look(time.monotonic())
    except LogError as error:
        if faults.is_due(str(error)):
            logger.event("facts_not_followed", reason=str(error))
    except Exception as error:
        reason = type(error).__name__
        if faults.is_due(reason):
            logger.exception("facts_not_followed", reason=reason)
