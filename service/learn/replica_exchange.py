"""The exchange of a learner with other replicas of a shared log: reports, snapshots, and its own readiness."""

from collections.abc import Mapping
from typing import Final

from service.learn.catch_up import CatchUp
from service.learn.replica_list import ReplicaList
from service.learn.snapshot_sender import SnapshotSender
from service.learn.stream_delays import StreamDelays
from service.learn.stream_learner import StreamLearner
from service.process.shared_memory import CAUGHT_UP, SharedMemory
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.states.state_folder import list_seqs


class ReplicaExchange:
    """The exchange of one learner; a log that is not shared has none.

    Args:
        log: The log.
        data: The data directory.
        role: The role of this replica.
        memory: The memory that the processes share.
    """

    def __init__(self, log: FeedbackLog, data: DataDirectory, role: str, memory: SharedMemory) -> None:
        self._is_shared: Final = log.is_shared
        self._data: Final = data
        self._memory: Final = memory
        self._replicas: Final = ReplicaList(log, role, memory.learner_cells)
        self._sender: Final = SnapshotSender(log)
        self._catch_up: Final = CatchUp(log)

    def exchange(
        self, now: float, streams: Mapping[int, Stream], learners: Mapping[int, StreamLearner], delays: StreamDelays
    ) -> bool:
        """Report what this replica has, pass on snapshots, and find out whether the service is ready; if it is due.

        Args:
            now: The time, in seconds of a monotonic clock.
            streams: The streams that exist, by number.
            learners: The learner of each stream, by its number.
            delays: Those of the streams whose learning is held.

        Returns:
            Whether the service serves now what the log had at its start, for the first time.

        Raises:
            LogError: The log cannot be used now.
        """
        if not self._is_shared:
            return False
        stalled = {number for number, learner in learners.items() if learner.is_stalled}
        if self._replicas.is_due(now):
            publishers = {number: learner.publisher for number, learner in learners.items()}
            self._replicas.exchange(now, publishers, delays.held | stalled)
        if self._replicas.has_workers:
            self._sender.send_due(learners)
        if self._memory.is_caught_up:
            return False
        # Other replicas have no more of a stream that is held or stalled here. One that a later release has taken over
        # counts only if a state of it is served: replicas of that release have more.
        last = {number for number in delays.held & streams.keys() if self._is_last(streams[number], delays)}
        published = {number: learner.publisher.published_seq for number, learner in learners.items()}
        is_caught_up = self._catch_up.is_done(streams.keys(), published, last | stalled)
        self._memory.learner_cells[CAUGHT_UP] = int(is_caught_up)
        return is_caught_up

    def _is_last(self, stream: Stream, delays: StreamDelays) -> bool:
        """Return whether no more can be served of a stream whose learning is held."""
        is_served = bool(list_seqs(self._data.stream_folder(stream.model, stream.version).snapshots))
        return is_served or stream.number not in delays.taken_over
