"""The weights of a model, live or at any seq, as a safetensors file.

What is served, or was just now, is at hand. Any other state is folded again: one process, of low priority, replays the
log (`softstep replay --keep`), and until it is done the answer is 202 with Retry-After. A state that a forgotten event
was a part of is gone for good: 410.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import orjson
import safetensors.numpy
from numpy.typing import NDArray

from service.errors import SeqNotFoundError, SnapshotError, StateForgottenError, StateIrreproducibleError
from service.serve.handlers.feedback import FeedbackHandler
from service.serve.models.served_model import ServedModel
from service.serve.responses import BINARY, HttpResponse, error
from service.settings import Settings
from service.store.directory.data_directory import StreamFolder
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.states.snapshots import Snapshot, prune_snapshots, read_snapshot

# States of the past that are kept at hand for the next who asks.
HISTORY_KEPT: Final = 4
NICE: Final = 10

Arrays = Mapping[str, NDArray[Any]]


class WeightsHandler:
    """Hands out one worker's weights, and has those of the past made."""

    def __init__(self, teaching: FeedbackHandler | None, settings: Settings) -> None:
        self._teaching = teaching
        self._settings = settings
        self._replays: dict[str, asyncio.Task[None]] = {}  # by the folder of a version's history

    async def answer(self, served: ServedModel, seq: int | None) -> HttpResponse:
        """The weights at a seq, or those that are served.

        Raises:
            UnknownIdError: There is no such event yet.
            StateForgottenError: A forgotten event was a part of that state, or an earlier release made it.
        """
        if seq is None or seq == served.seq:
            learned = served.learned
            arrays: Arrays = served.artifact.tensors if learned is None else learned.arrays
            sha256 = served.artifact.weights_sha256 if learned is None else learned.fields["weights_sha256"]
            return await _file(arrays, served.seq, sha256)
        if self._teaching is None:
            raise SeqNotFoundError("The model has no event with that seq.")
        folder = self._teaching.folder(served)
        is_gone = await self._teaching.writer.call_with_log(lambda log: _check(log, served, seq))
        if is_gone:
            (folder.history / str(seq)).unlink(missing_ok=True)
            raise StateForgottenError("A forgotten event was a part of that state, which is gone for good.")
        if seq == 0:
            return await _file(served.artifact.tensors, 0, served.artifact.weights_sha256)
        snapshot = await asyncio.to_thread(_kept, folder, seq)
        if snapshot is not None:
            return await _file(snapshot.arrays, seq, snapshot.fields["weights_sha256"])
        task = self._replays.get(str(folder.history))
        if task is None or task.done():
            self._replays[str(folder.history)] = asyncio.create_task(self._replay(served, folder, seq))
        return error("state_pending", "The state is being computed; ask again in a moment.")

    async def _replay(self, served: ServedModel, folder: StreamFolder, seq: int) -> None:
        """Have a state made by a process of its own."""
        await asyncio.to_thread(prune_snapshots, folder.history, HISTORY_KEPT - 1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", "replay", f"{served.name}/{served.version}",
            "--data", str(self._settings.data), "--seq", str(seq), "--keep", str(folder.history),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, preexec_fn=_make_way,
        )  # fmt: skip
        await process.wait()


def _make_way() -> None:
    os.nice(NICE)


def _check(log: FeedbackLog, served: ServedModel, seq: int) -> bool:
    """Whether a forgotten event was a part of the state at a seq; on the writer's thread.

    Raises:
        StateForgottenError: This release cannot make the state again.
    """
    for stream in log.list_streams():
        if stream[1:3] == (served.name, int(served.version)) and seq <= log.stream_state(stream.number).seq:
            lineage = read_lineage(log, stream.number)
            if 0 < seq < lineage.newest_base_seq:
                raise StateIrreproducibleError("An earlier release made that state, and this one cannot make it again.")
            return any(lineage.contains(seq, forgotten) for forgotten in lineage.forgotten)
    raise SeqNotFoundError("The model has no event with that seq.")


def _kept(folder: StreamFolder, seq: int) -> Snapshot | None:
    for files in (folder.snapshots, folder.history):
        try:
            return read_snapshot(files / str(seq))
        except SnapshotError:
            continue
    return None


async def _file(arrays: Arrays, seq: int, sha256: str) -> HttpResponse:
    """A safetensors file, whose metadata and headers name the state."""
    # One entry: safetensors writes several in no fixed order, and equal states are equal files.
    told = {"softstep": orjson.dumps({"seq": seq, "weights_sha256": sha256}).decode()}
    content = await asyncio.to_thread(safetensors.numpy.save, dict(arrays), told)
    headers = ((b"x-softstep-seq", b"%d" % seq), (b"x-softstep-weights-sha256", sha256.encode()))
    return HttpResponse(200, content, BINARY, headers)
