"""States of the past: those on disk, and those that a process of its own folds from the log.

A state that is neither served nor on disk is folded again by a process of low priority (`softstep replay --keep`). A
fold may take minutes, and any key for predictions can ask for one. So each worker folds one state at a time for those
keys, and one for administrators, who need not wait for them. A state that a forgotten event was part of is gone. States
from the FORGET event on were made without it, and remain.
"""

import asyncio
import os
import sys
from contextlib import suppress
from typing import Final

from service.access.scopes import Scope
from service.configuration import log_environment
from service.errors import SeqNotFoundError, SnapshotError, StateForgottenError, StateIrreproducibleError
from service.log_events import logger
from service.log_limit import LineLimit
from service.role_errors import NotInRoleError
from service.serve.log.writer import Writer
from service.serve.models.served_model import ServedModel
from service.serve.responses import NO_CALL, HttpResponse, error
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory, StreamFolder
from service.store.log.feedback_log import FeedbackLog
from service.store.states.snapshots import Snapshot, read_snapshot
from service.store.states.state_folder import prune_snapshots

# So many states of the past stay on disk for the next request.
HISTORY_MAX: Final = 4
NICE: Final = 10
# What begins an error of a command (console.py), unlike the lines of its progress and of a traceback.
COMMAND_PREFIX: Final = b"softstep: "


class PastStates:
    """Finds states of the past, or starts to make them.

    Args:
        writer: The writer, whose thread reads the log.
        data: The data directory.
        settings: Where the data directory and the log are.
    """

    def __init__(self, writer: Writer, data: DataDirectory, settings: Settings) -> None:
        self._writer: Final = writer
        self._data: Final = data
        self._settings: Final = settings
        self._failures: Final = LineLimit()
        self._replays: Final[dict[Scope, asyncio.Task[None]]] = {}  # by the scope of the call that needs the state

    async def check_available(self, served: ServedModel, seq: int) -> None:
        """Check that the state at a seq exists.

        Raises:
            SeqNotFoundError: The stream has no such event yet.
            StateForgottenError: A forgotten event was part of that state.
            StateIrreproducibleError: An earlier release made that state.
        """
        if await self._writer.call_with_log(lambda log: _is_forgotten(log, served, seq)):
            (self._folder(served).history / str(seq)).unlink(missing_ok=True)
            raise StateForgottenError("A forgotten event was part of that state, so it is gone; ask for another seq.")

    async def close(self) -> None:
        """End the processes that fold; call this once, in the serving process."""
        for task in self._replays.values():
            task.cancel()
        await asyncio.gather(*self._replays.values(), return_exceptions=True)

    async def find(self, served: ServedModel, seq: int) -> ServedModel | None:
        """Return a version as it was at a seq; None while that is folded, or other states for predictions are.

        Raises:
            SeqNotFoundError: The stream has no such event yet.
            StateForgottenError: A forgotten event was part of that state.
            StateIrreproducibleError: An earlier release made that state.
        """
        await self.check_available(served, seq)
        if seq == 0:
            return await asyncio.to_thread(served.as_trained)
        snapshot = await self.find_or_start(served, seq, Scope.PREDICT)
        return None if snapshot is None else await asyncio.to_thread(served.with_snapshot, seq, snapshot)

    async def find_or_start(self, served: ServedModel, seq: int, scope: Scope) -> Snapshot | None:
        """Return the state at a seq if it is on disk, or None.

        It is folded then, unless another state is being folded for calls of the same scope.

        Raises:
            NotInRoleError: It is not on disk, and this replica folds nothing.
        """
        folder = self._folder(served)
        snapshot = await asyncio.to_thread(_read_state, folder, seq)
        if snapshot is None:
            if self._settings.role == "worker":
                raise NotInRoleError(NO_CALL)
            task = self._replays.get(scope)
            if task is None or task.done():
                self._replays[scope] = asyncio.create_task(self._replay(served, folder, seq))
        return snapshot

    def _folder(self, served: ServedModel) -> StreamFolder:
        return self._data.stream_folder(*served.key)

    async def _replay(self, served: ServedModel, folder: StreamFolder, seq: int) -> None:
        """Fold a state in a process of its own."""
        await asyncio.to_thread(prune_snapshots, folder.history, HISTORY_MAX - 1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", "replay", f"{served.name}/{served.version}",
            "--data", str(self._settings.data), "--seq", str(seq), "--keep", str(folder.history),
            env=log_environment(os.environ, self._settings),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, preexec_fn=_lower_priority,
        )  # fmt: skip
        try:
            _, errors = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
        if process.returncode:
            reason = _last_sentence(errors) or f"exit code {process.returncode}"
            if self._failures.is_due(f"{served.key} {reason}"):
                logger.event("past_state_failed", model=served.name, version=served.version, seq=seq, reason=reason)


def _last_sentence(errors: bytes) -> str:
    """Return the last error that a command has printed, or "" if it has printed none, as when it was killed."""
    lines = [line.removeprefix(COMMAND_PREFIX) for line in errors.splitlines() if line.startswith(COMMAND_PREFIX)]
    return lines[-1].decode(errors="replace") if lines else ""


def not_learned() -> SeqNotFoundError:
    """Return the error of a seq other than 0 in a service that does not learn."""
    return SeqNotFoundError("This service does not learn, so the only seq of its models is 0.")


def state_pending() -> HttpResponse:
    """Return the response of a call that needs a state while it is folded."""
    return error("state_pending", "The state is being computed; ask again in a moment.")


def _lower_priority() -> None:
    os.nice(NICE)


def _is_forgotten(log: FeedbackLog, served: ServedModel, seq: int) -> bool:
    """Whether an event was part of the state at a seq and was forgotten later; on the writer's thread."""
    for stream in log.list_streams():
        if stream[1:3] == served.key and seq <= log.stream_state(stream.number).seq:
            lineage = log.current_lineage(stream.number)
            if 0 < seq < lineage.newest_base_seq:
                raise StateIrreproducibleError(
                    "An earlier release made that state, and this one cannot; "
                    f"ask for seq {lineage.newest_base_seq} or a later one, or for 0."
                )
            return any(lineage.contains(seq, forgotten) for forgotten in lineage.forgotten_after(seq))
    raise SeqNotFoundError('The model has no event with that seq; the last one is "log_seq" of the metadata.')


def _read_state(folder: StreamFolder, seq: int) -> Snapshot | None:
    """Read the state at a seq from the snapshots, the keyframes or the history; None if none of them has it."""
    for states in (folder.snapshots, folder.keyframes, folder.history):
        try:
            return read_snapshot(states / str(seq))
        except SnapshotError:
            continue
    return None
