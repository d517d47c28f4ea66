"""A state machine of random histories whose log forks: it loses its last events and gets others."""

from contextlib import suppress
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from service.chain_errors import LogEndsEarlierError, LogForkedError
from service.errors import SnapshotError
from service.learn.lost_states import drop_lost_states
from service.learn.publish import snapshot_contents
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Kind, Position
from service.store.states.snapshots import read_snapshot, write_snapshot
from service.store.states.state_folder import list_seqs
from service.store.states.state_positions import contains_position, dependencies
from tests.support.history_machine import FollowMachine
from tests.support.memory_log import MemoryLog


class ForkMachine(FollowMachine):
    """A stream whose last events are lost at random, also those of admin calls, and a follower that notices."""

    def make_log(self) -> MemoryLog:
        """Return a log that can become what it was before."""
        self.memory = MemoryLog()
        self.saved: dict[int, tuple[object, list[bytes]]] = {}
        return self.memory

    def append_event(self, kind: Kind, payload: bytes) -> bool:
        """Commit one event, and keep the log of before."""
        self.saved[self.last] = self.memory.save(), list(self.ids)
        return super().append_event(kind, payload)

    @property
    def files(self) -> StreamFolder:
        """The folder of the stream."""
        return StreamFolder(Path(self.folder.name))

    def start(self) -> None:
        """Start a follower as a learner does; if the log ends too early, once it has grown."""
        while True:
            try:
                drop_lost_states(self.stream, self.log, self.files)
                break
            except LogEndsEarlierError:
                self.append_feedback()
        for folder in (self.files.checkpoints, self.files.snapshots, self.files.keyframes):
            for seq in list_seqs(folder):
                with suppress(SnapshotError):  # one that was damaged
                    fields = read_snapshot(folder / str(seq)).fields
                    assert all(self.contains(position) for position in dependencies(seq, fields))
        super().start()

    def append_feedback(self) -> None:
        """Append an event that takes the place of a lost one, or the first one after."""
        classes = self.log.stream_state(self.stream.number).n_classes
        assert self.append_event(Kind.FEEDBACK, self.row_payload(1, classes, soft=False))

    def contains(self, position: Position) -> bool:
        """Return whether the log has a position."""
        try:
            return contains_position(self.log, self.stream, position)
        except LogEndsEarlierError:
            return False

    @property
    def is_followed(self) -> bool:
        """Whether the log has everything that the follower depends on."""
        return self.contains(self.follower.position) and self.contains(self.follower.heeded)

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        """Lose the last events."""
        seq = data.draw(st.sampled_from(sorted(self.saved)))
        saved, self.ids = self.saved[seq][0], list(self.saved[seq][1])
        self.memory.restore(saved)
        self.saved = {known: saved for known, saved in self.saved.items() if known < seq}

    @precondition(lambda self: not self.follower.is_refolding and self.follower.seq > 0)
    @rule(keyframe=st.booleans())
    def publish(self, *, keyframe: bool) -> None:
        """Write a snapshot or a keyframe."""
        folder = self.files.keyframes if keyframe else self.files.snapshots
        contents = snapshot_contents(self.follower.fold, self.follower.position_fields())
        write_snapshot(folder, self.follower.seq, *contents, durable=False)

    @rule(limit=st.integers(1, 7))
    def follow(self, limit: int) -> None:
        """Fold some events, all of which belong to the chain that was followed; or notice that it is another one."""
        self.follow_some(limit)

    def follow_some(self, limit: int) -> bool:
        """Return whether there was something to do."""
        try:
            events = self.follower.read_next(limit)
            if events:
                self.follower.fold_batch(events)
        except LogEndsEarlierError:
            assert self.last < max(self.follower.seq, self.follower.heeded.seq)
            self.append_feedback()
            return True
        except LogForkedError:
            assert not self.is_followed
            self.start()
            return True
        assert self.is_followed
        return bool(events)

    @invariant()
    def the_state_is_that_of_the_lineage(self) -> None:
        """Compare the state with its definition, unless the follower has not noticed yet that the log has forked."""
        if hasattr(self, "follower") and self.is_followed:
            super().the_state_is_that_of_the_lineage()

    @rule()
    def catch_up(self) -> None:
        """Fold all events, of whatever chain: state and history are those of a fold that never saw another one."""
        while self.follow_some(4):
            pass
        super().catch_up()
