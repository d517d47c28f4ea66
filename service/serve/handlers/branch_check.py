"""Whether a served state has the events that a shared log has now, after a failover that may have lost some.

Seqs alone cannot tell: after such a failover the log gives the seqs of lost events to others. The learner notices by
the chain of hashes and counts a doubt (LOG_DOUBTS). From then on a request with `min_seq` is answered once it is known
how far the served state and the log agree:

    the log has the positions on which the served state depends     as far as the state goes, until the next doubt
    the log ends before one of them, so the learner waits for it    as far as the last stored state that the log has
    the log has other events there                                  not at all: the learner goes back in a moment

Without a doubt nothing is asked. The learner looks several times a second, so a state of lost events may be served for
so long after the failover, and as long as this replica cannot reach the database.
"""

import asyncio
from contextlib import suppress
from typing import Final, NamedTuple

from service.chain_errors import LogEndsEarlierError
from service.errors import SnapshotError, SoftstepError
from service.serve.log.writer import Writer
from service.serve.metrics.counters import WorkerCounters
from service.serve.models.served_model import ServedModel
from service.store.directory.data_directory import DataDirectory, StreamFolder
from service.store.log.events import SEQ_MAX, Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.states.snapshots import Fields, read_fields
from service.store.states.state_folder import list_seqs
from service.store.states.state_positions import contains_position, dependencies


class Agreement(NamedTuple):
    """How far the states of a version agree with the log, as of a number of doubts."""

    doubts: int
    seq: int


class BranchCheck:
    """Checks served states against a shared log; used on the event loop's thread.

    Args:
        writer: The writer, whose thread reads the log.
        data: The data directory.
        counters: The worker's counters, which know the doubts of the learner.
    """

    def __init__(self, writer: Writer, data: DataDirectory, counters: WorkerCounters) -> None:
        self._writer: Final = writer
        self._data: Final = data
        self._counters: Final = counters
        self._agreements: Final[dict[tuple[str, int], Agreement]] = {}
        self._checks: Final[dict[tuple[str, int], asyncio.Task[None]]] = {}

    def is_open(self, served: ServedModel, seq: int) -> bool:
        """Return whether it is not known that a served state has the event that the log has at a seq."""
        doubts = self._counters.log_doubts()
        if doubts == 0 or served.learned is None:
            return False
        known = self._agreements.get(served.key)
        return known is None or known.doubts != doubts or known.seq < seq

    async def check(self, served: ServedModel) -> None:
        """Ask the log how far a served state agrees with it; callers that ask at the same time share one answer."""
        check = self._checks.get(served.key)
        if check is None:
            check = self._checks[served.key] = asyncio.create_task(self._check(served))
            check.add_done_callback(lambda _: self._checks.pop(served.key))
        await asyncio.shield(check)

    async def _check(self, served: ServedModel) -> None:
        doubts = self._counters.log_doubts()
        with suppress(SoftstepError, OSError):  # it is asked again
            seq = await self._writer.call_with_log(lambda log: self._find_agreement(log, served))
            self._agreements[served.key] = Agreement(doubts, seq)

    def _find_agreement(self, log: FeedbackLog, served: ServedModel) -> int:
        """Return the last seq up to which a state and the log agree for certain; on the writer's thread."""
        stream = next((stream for stream in log.list_streams() if stream[1:3] == served.key), None)
        if stream is None or served.learned is None:
            return 0
        try:
            return SEQ_MAX if _contains(log, stream, served.seq, served.learned.fields) else 0
        except LogEndsEarlierError:
            return _last_stored(log, stream, self._data.stream_folder(*served.key), served.seq)


def _contains(log: FeedbackLog, stream: Stream, seq: int, fields: Fields) -> bool:
    """Return whether the log has the positions on which a state depends.

    Raises:
        LogEndsEarlierError: It ends before one of them.
    """
    return all(contains_position(log, stream, position) for position in dependencies(seq, fields))


def _last_stored(log: FeedbackLog, stream: Stream, folder: StreamFolder, seq: int) -> int:
    """Return the seq of the last stored state before a seq that the log has, or 0.

    While the log ends before what was learned, all stored states belong to the chain that is served.
    """
    folders = (folder.checkpoints, folder.keyframes, folder.snapshots)
    files = {stored: states / str(stored) for states in folders for stored in list_seqs(states) if stored < seq}
    for stored in sorted(files, reverse=True):
        with suppress(LogEndsEarlierError, SnapshotError, KeyError, TypeError, ValueError):
            fields = read_fields(files[stored])
            if fields["genesis"] == stream.genesis.hex() and _contains(log, stream, stored, fields):
                return stored
    return 0
