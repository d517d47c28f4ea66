"""The log in SQLite, the log in memory and a plain list agree at every step of random histories."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from service.store.log.feedback_log import FeedbackLog
from service.store.log.sqlite import SqliteLog
from tests.support.disk_faults import Disk, Fault
from tests.support.log_machine import LogMachine, names, places


class SqliteMachine(LogMachine):
    """The disk fails at times."""

    def open_first(self) -> FeedbackLog:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "log.sqlite"
        self.disk = Disk()
        return self.open()

    def open(self) -> SqliteLog:
        return SqliteLog(self.path, tail_events_max=3, vfs=self.disk.name)

    def heal(self) -> None:
        self.disk.heal()

    def end(self) -> None:
        self.folder.cleanup()

    @rule(at=places, id_=names, after=st.integers(0, 8), fault=st.sampled_from([Fault.IO, Fault.FULL, Fault.TORN]))
    def fail(self, at: int, id_: bytes, after: int, fault: Fault) -> None:
        """The disk fails somewhere in the next append, or never."""
        self.append_with_fault(at, id_, lambda: self.disk.fail(after, fault))

    @rule(how=st.sampled_from(["close", "empty_wal", "checkpoint_wal"]))
    def reopen(self, how: str) -> None:
        """A restart or a checkpoint changes nothing; a second object continues."""
        getattr(self.log, how)()
        self.log = self.open()


TestLog: Callable[..., object] = SqliteMachine.TestCase
TestLog.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)  # type: ignore[attr-defined]
