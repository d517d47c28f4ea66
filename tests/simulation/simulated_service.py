"""A log that forks, its clients, and the replicas that follow it; all in one process, one step after another.

The primary server has every event, its standby those up to `copied`. An event is acknowledged once the standby has it.
A failover loses the others, though replicas may have read them. Replicas are the real follower on real files.
"""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from service.chain_errors import LogEndsEarlierError, LogForkedError
from service.errors import ArtifactError, LogDamagedError, LogUnavailableError
from service.learn.fold_upgrade import check_taken_over, take_over
from service.learn.follow import Follower
from service.learn.lost_states import drop_lost_states
from service.learn.publish import snapshot_contents
from service.store.artifact.artifact import Artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Draft, EventLocation, Position
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.states.snapshots import write_snapshot
from service.store.states.state_positions import contains_position
from tests.support.history_machine import contents_hash, fold_by_definition, history_by_definition, set_fold_version
from tests.support.memory_log import MemoryLog


class ViolationError(Exception):
    """A promise was broken; the message says which."""


def require(promise: str, *, kept: bool) -> None:
    """Raise a ViolationError unless a promise is kept."""
    if not kept:
        raise ViolationError(promise)


class BranchingLog(MemoryLog):
    """The log of the primary; `save` copies no event, because events are never changed in place."""

    def save(self) -> Any:
        heads = {number: replace(head, lineage=None, lineage_seq=0) for number, head in self._heads.items()}
        stored = {number: list(events) for number, events in self._stored.items()}
        return heads, stored, dict(self._places), self._opened

    def restore(self, saved: Any) -> None:
        heads, stored, places, opened = saved
        self._heads = {number: replace(head) for number, head in heads.items()}
        self._stored = {number: list(events) for number, events in stored.items()}
        self._places, self._opened = dict(places), opened


class Servers:
    """A primary and a standby of the log, and what clients were told."""

    def __init__(self, artifact: Artifact, genesis: bytes, seed: int) -> None:
        self.log: Final = BranchingLog(random.Random(seed).randbytes)
        self.artifact: Final = artifact
        self.stream: Final = self.log.open_stream("m", 1, genesis, 3)
        self._saved = {0: self.log.save()}
        self._waiting: dict[bytes, tuple[Draft, Position]] = {}
        self.acknowledged: dict[bytes, Position] = {}
        self.unknown: dict[bytes, Draft] = {}  # sent, and lost by a failover before the answer
        self.copied = 0
        self.failovers = 0
        self.counts: Counter[str] = Counter()  # of what happened, to show that it did
        self.reads_to_failover: int | None = None

    @property
    def head(self) -> Position:
        state = self.log.stream_state(self.stream.number)
        return Position(state.seq, state.hash)

    def append(self, draft: Draft) -> bool:
        """Append an event; the answer waits for the standby. Return whether it was accepted."""
        before = self.head.seq
        (outcome,) = self.log.append([draft])
        if not isinstance(outcome, EventLocation):
            return False
        if self.head.seq > before:
            self._saved[self.head.seq] = self.log.save()
        event = self.log.read_events(self.stream.number, outcome.seq - 1, 1)[0]
        self._waiting[draft.id] = (draft, Position(event.seq, event.hash))
        self.unknown.pop(draft.id, None)
        return True

    def copy(self, seq: int) -> None:
        """Let the standby have the events up to a seq, and answer those who wait for them."""
        self.copied = max(self.copied, min(seq, self.head.seq))
        for id_, (_, position) in list(self._waiting.items()):
            if position.seq <= self.copied:
                del self._waiting[id_]
                require("an id has one position", kept=self.acknowledged.get(id_, position) == position)
                self.acknowledged[id_] = position
        self._saved = {known: saved for known, saved in self._saved.items() if known >= self.copied}

    def fail_over(self) -> None:
        """Promote the standby: the events that it does not have are lost."""
        self.failovers += 1
        self.counts["failovers"] += 1
        self.counts["lost events"] += self.head.seq - self.copied
        self.log.restore(self._saved[self.copied])
        self._saved = {self.copied: self._saved[self.copied]}
        self.unknown |= {id_: draft for id_, (draft, _) in self._waiting.items()}
        self._waiting.clear()

    def count_read(self) -> None:
        """Count a read of a replica; the failover that was ordered comes between two of them."""
        if self.reads_to_failover is not None:
            self.reads_to_failover -= 1
            if self.reads_to_failover < 0:
                self.reads_to_failover = None
                self.fail_over()

    def contains(self, position: Position) -> bool:
        """Return whether the log has a position now."""
        try:
            return contains_position(self.log, self.stream, position)
        except LogEndsEarlierError:
            return False

    def check_acknowledged(self) -> None:
        """Check that the log has every acknowledged event, and no two at one seq."""
        positions = self.acknowledged.values()
        require("an acknowledged event is kept", kept=all(map(self.contains, positions)))
        require("a seq is given once", kept=len({position.seq for position in positions}) == len(positions))


class Connection:
    """What a replica sees of the log: reads fail while it is cut off, and a failover may come between any two."""

    def __init__(self, servers: Servers) -> None:
        self._servers: Final = servers
        self.is_cut = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._servers.log, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            if self.is_cut:
                raise LogUnavailableError("the replica is cut off")
            self._servers.count_read()
            if name == "append":  # a BASE
                require("a BASE is appended", kept=all(map(self._servers.append, *arguments)))
                self._servers.counts["takeovers"] += 1
            return getattr(self._servers.log, name)(*arguments, **options)

        return call


class Replica:
    """One service that follows the log.

    Attributes:
        served: The position, the hash of the contents and the release of what its workers answer with.
        looked: The number of failovers before its last look at the log.
    """

    def __init__(self, servers: Servers, path: Path, release: int) -> None:
        self._servers: Final = servers
        self.folder: Final = StreamFolder(path)
        self.connection: Final = Connection(servers)
        self.release = release
        self.follower: Follower | None = None
        self.served: Position | None = None
        self.held: Position | None = None
        self.looked = -1
        self._is_whole = True  # no batch has failed half way

    def stop(self) -> None:
        """End without writing anything."""
        self.follower = self.served = self.held = None
        self.looked = -1

    @property
    def _log(self) -> FeedbackLog:
        return self.connection  # type: ignore[return-value]  # it passes all calls on

    @property
    def is_outdated(self) -> bool:
        """Whether a later release has taken the stream over."""
        bases = read_lineage(self._servers.log, self._servers.stream.number).bases
        return any(base.fold > self.release for base in bases)

    def look(self, limit: int) -> bool:
        """Fold at most `limit` events as a learner does; return whether the replica has reached the head."""
        servers, failovers = self._servers, self._servers.failovers
        set_fold_version(self.release)
        try:
            return self._fold(limit)
        except LogUnavailableError:
            self._drop_broken()  # the replica is cut off, and looks again in a later step
        except LogEndsEarlierError:
            self._drop_broken()
            self.held = servers.head
            servers.counts["looks at a log that ends early"] += 1
        except LogForkedError:
            if self.follower is not None and servers.failovers == failovers:
                positions = self.follower.position, self.follower.heeded
                require("a fork is one", kept=not all(map(servers.contains, positions)))
            self.follower = None
            servers.counts["forks noticed"] += 1
        except LogDamagedError as error:
            # Two reads, one on each branch; or a base that a later FORGET has erased, which a new follower reads.
            is_excused = self.follower is not None or servers.failovers > failovers
            require(f"a log that forks is not damaged: {error}", kept=is_excused)
            self.follower = None
            servers.counts["starts again for other reasons"] += 1
        except ArtifactError:
            require(
                "this release is refused only after a later one",
                kept=self.is_outdated or failovers != servers.failovers,
            )
            self.follower = None
        return False

    def _drop_broken(self) -> None:
        """Drop a state that may be half folded, as a learner does."""
        if not self._is_whole:
            self.follower = None

    def _fold(self, limit: int) -> bool:
        servers, failovers, self._is_whole = self._servers, self._servers.failovers, True
        if self.follower is None:
            if drop_lost_states(servers.stream, self._log, self.folder) is not None:
                servers.counts["starts from states of lost events"] += 1
            take_over(servers.stream, servers.artifact, self._log, self.folder.checkpoints, 0)
            follower = Follower(servers.stream, servers.artifact, self._log, self.folder)
            check_taken_over(servers.stream, servers.artifact, follower.lineage)
            self.follower = follower
        follower = self.follower
        events = follower.read_next(limit)
        if events:
            self._is_whole = False
            follower.fold_batch(events)
            self._is_whole = True
        self.held = None
        if follower.is_refolding:
            return False
        self.served = follower.position
        if servers.failovers > failovers:
            return False
        self.looked = failovers
        require("the served state is one of the log", kept=servers.contains(follower.position))
        require("the state heeds the log alone", kept=servers.contains(follower.heeded))
        return not events

    def write(self, *, snapshot: bool) -> None:
        """Write a checkpoint or a snapshot of the state."""
        follower = self.follower
        if follower is None or follower.is_refolding or not follower.seq:
            return
        if snapshot:
            contents = snapshot_contents(follower.fold, follower.position_fields())
            write_snapshot(self.folder.snapshots, follower.seq, *contents, durable=False)
        else:
            follower.write_checkpoint()

    def check_promise(self) -> None:
        """Check requests with the `min_seq` of acknowledged events, if no failover came after the last look."""
        if self.served is None or self.looked != self._servers.failovers:
            return
        require("an answer is of a state that the log has", kept=self._servers.contains(self.served))
        number, seq = self._servers.stream.number, self.served.seq
        for position in self._servers.acknowledged.values():
            if position.seq <= seq:
                self._servers.counts["requests with min_seq"] += 1
                found = self._servers.log.read_events(number, position.seq - 1, 1)
                require("min_seq covers the event that was acknowledged", kept=found[0].hash == position.hash)

    def check_state(self) -> None:
        """Compare state and history with the fold of the log by its definition; the replica is at the head."""
        servers, follower = self._servers, self.follower
        if follower is None:
            raise ViolationError("a replica at the head has a state")
        set_fold_version(self.release)
        number, seq = servers.stream.number, servers.head.seq
        require("a replica reaches the head", kept=follower.position == servers.head)
        expected = fold_by_definition(servers.artifact, servers.log, number, seq)
        require("the state is the fold of the log", kept=contents_hash(follower.fold) == contents_hash(expected))
        if not read_lineage(servers.log, number).bases:
            history = history_by_definition(servers.artifact, servers.log, number, seq, 0)
            require("the history is that of the log", kept=follower.history.sha256() == history.sha256())
