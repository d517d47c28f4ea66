"""The log in SQLite keeps the contract of every log, for several processes, through a failing disk and kill -9."""

from pathlib import Path

from service.store.feedback import FeedbackLog
from service.store.sqlite import SqliteLog
from tests.contracts.feedback_log import FeedbackLogTests


class TestSqliteLog(FeedbackLogTests):
    """Every thread that races has a connection of its own."""

    def make_log(self, folder: Path) -> FeedbackLog:
        return SqliteLog(folder / "log.sqlite")

    def reopen(self, log: FeedbackLog, folder: Path) -> FeedbackLog:
        log.close()
        return self.make_log(folder)

    def racer(self, log: FeedbackLog, folder: Path) -> FeedbackLog:  # noqa: ARG002  # it opens the file again
        return self.make_log(folder)
