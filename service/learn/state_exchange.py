"""Compare the states of one stream with those of other replicas, and begin with the newest one that any has stored.

Every replica of a shared log writes a checkpoint at each seq that is a multiple of SHARED_EVENTS. Nothing else decides
where: neither the clock nor how fast a replica is. The bytes of such a checkpoint depend on the events up to there
alone, unless the follower has heeded a later admin event already. Such checkpoints are not compared.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from service.errors import LogUnavailableError, OutcomeUnknownError, SnapshotError, SoftstepError
from service.store.artifact.fingerprint import FOLD_VERSION
from service.store.directory.data_directory import StreamFolder
from service.store.filesystem import make_folder, write_whole_file
from service.store.log.events import Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.log.shared_states import ComparedState
from service.store.states.snapshots import read_fields
from service.store.states.state_folder import list_seqs
from service.store.states.state_positions import contains_position

# A new replica folds at most so many events, in about a second, before it is as far as the others.
SHARED_EVENTS: Final = 1 << 16


class StateDivergedError(SoftstepError):
    """The state of this replica is not the one that others have after the same events.

    Args:
        seq: The last event of the state.
    """

    def __init__(self, seq: int) -> None:
        super().__init__("the state differs from that of other replicas; all events are folded again")
        self.seq: Final = seq

    @property
    def status(self) -> dict[str, Any]:
        """The fields of the status that say so."""
        return {"state": "diverged", "reason": str(self), "seq": self.seq}


class StateExchange:
    """The states of one stream that are compared.

    Args:
        stream: The stream.
        log: The log, which may be shared.
        folder: The folder of the stream's checkpoints.
    """

    def __init__(self, stream: Stream, log: FeedbackLog, folder: Path) -> None:
        self._stream: Final = stream
        self._log: Final = log
        self._folder: Final = folder
        # Written, but not compared yet: the last one may be from before a restart.
        self._pending = [seq for seq in list_seqs(folder) if seq % SHARED_EVENTS == 0][-1:] if log.states else []

    def is_due(self, seq: int) -> bool:
        """Return whether a checkpoint of a seq is to be written for the comparison."""
        return self._log.states is not None and seq % SHARED_EVENTS == 0

    def events_until_due(self, seq: int) -> int:
        """Return how many events after a seq may be folded before `is_due` must be asked."""
        return SHARED_EVENTS - seq % SHARED_EVENTS

    def add(self, seq: int) -> None:
        """Note that the checkpoint of a seq was written."""
        self._pending.append(seq)

    def compare(self) -> bool:
        """Compare the states that were not compared yet; they stay for the next call while the log is unavailable.

        Returns:
            Whether no state is left.

        Raises:
            StateDivergedError: One differs.
        """
        while self._pending:
            seq = self._pending[0]
            try:
                is_equal = self._is_equal(seq)
            except (LogUnavailableError, OutcomeUnknownError):
                return False
            if not is_equal:
                raise StateDivergedError(seq)
            del self._pending[0]
        return True

    def fetch(self) -> None:
        """Write the newest state that any replica has stored to the checkpoints, if it is newer than they are.

        Raises:
            LogError: The log cannot be used now, or differs from what was written.
            OSError: The disk failed.
        """
        states, files = self._log.states, self._log.files
        if states is None or files is None:
            return
        newest, number = max(list_seqs(self._folder), default=0), self._stream.number
        found = [one for one in states.newest(number) if one[0].position.seq > newest]
        if not found:
            return
        lineage, last = read_lineage(self._log, number), self._log.stream_state(number).seq
        for state, sha256 in found:
            seq = state.position.seq
            is_usable = state.fold <= FOLD_VERSION and state.epoch == lineage.epoch(last)
            if not is_usable or seq > last or not lineage.continues(last, seq):
                continue
            if contains_position(self._log, self._stream, state.position):
                content = files.get(sha256)
                if content is not None:
                    make_folder(self._folder)
                    write_whole_file(self._folder / str(seq), [content], durable=True)
                    return

    def _is_equal(self, seq: int) -> bool:
        """Return whether the checkpoint of a seq is that of other replicas, or cannot be compared."""
        path = self._folder / str(seq)
        state = self._describe(path, seq)
        if self._log.states is None or state is None:
            return True
        with suppress(OSError):  # it was deleted
            return self._log.states.compare(state, path.read_bytes())
        return True

    def _describe(self, path: Path, seq: int) -> ComparedState | None:
        with suppress(SnapshotError, KeyError, TypeError, ValueError):
            fields = read_fields(path)
            if "heeded" not in fields and fields["genesis"] == self._stream.genesis.hex():
                position = Position(seq, bytes.fromhex(fields["hash"]))
                return ComparedState(self._stream.number, position, fields["epoch"], fields["scalars"]["fold_version"])
        return None


def delete_states_of(folder: StreamFolder) -> None:
    """Delete all states of a stream, so that they are folded again from the artifact.

    Raises:
        OSError: The disk failed.
    """
    for files in (folder.checkpoints, folder.keyframes, folder.history, folder.snapshots):
        for seq in reversed(list_seqs(files)):
            (files / str(seq)).unlink(missing_ok=True)
