"""The log in memory passes the conformance suite."""

from pathlib import Path

import pytest

from service.errors import LogUnsafeError
from service.store.log.feedback_log import FeedbackLog
from tests.support.feedback_log_contract import FeedbackLogTests
from tests.support.memory_log import MemoryLog


class TestMemoryLog(FeedbackLogTests):
    """Reopening returns the same object, since nothing is stored elsewhere."""

    def make_log(self, folder: Path) -> FeedbackLog:  # noqa: ARG002  # it keeps no files
        return MemoryLog()

    def reopen(self, log: FeedbackLog, folder: Path) -> FeedbackLog:  # noqa: ARG002  # as above
        log.close()
        return log

    def test_it_has_no_backup(self, log: FeedbackLog, tmp_path: Path) -> None:
        with pytest.raises(LogUnsafeError):
            log.write_copy(tmp_path / "copy")
