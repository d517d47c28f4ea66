"""Follow the files that say who may call: API keys, certificate subjects, and those of TLS."""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from service.log_events import logger
from service.log_limit import LineLimit
from service.serve.authorization.authorizer import WATCH_SECONDS, Authorizer
from service.serve.watched_files import WatchedFiles


class AccessFiles:
    """Reads the files again when they change; used on the event loop's thread.

    Args:
        authorizer: Has the API keys.
        files: The other files.
    """

    def __init__(self, authorizer: Authorizer, files: Sequence[WatchedFiles[Any]]) -> None:
        self._authorizer: Final = authorizer
        self._files: Final = tuple(files)
        self._asked: Final = asyncio.Event()

    def reread(self) -> None:
        """Read them all now, even if they seem unchanged."""
        self._asked.set()

    async def follow(self) -> None:
        """Look at the files and at what has expired, twice a second each."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_files())
            tasks.create_task(self._follow_ends())

    async def _follow_files(self) -> None:
        """Read changed files; a fault is logged, and they are read again."""
        faults = LineLimit()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), WATCH_SECONDS)
            again = self._asked.is_set()
            self._asked.clear()
            try:
                await self._read_files(again=again)
            except Exception as error:
                if faults.is_due(type(error).__name__):
                    logger.exception("access_not_followed")

    async def _read_files(self, *, again: bool) -> None:
        """Use the files that have changed; a disk that hangs does not stop the event loop."""
        self._authorizer.use(await asyncio.to_thread(self._authorizer.read_changed))
        for file in self._files:
            value = await asyncio.to_thread(partial(file.read_changed, again=again))
            if value is not None:
                file.use(value)
                self._authorizer.forget()

    async def _follow_ends(self) -> None:
        """Forget what has expired, also while the disk hangs."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._authorizer.forget_expired()
