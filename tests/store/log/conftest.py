"""Fixtures of logs in SQLite."""

from pathlib import Path

import pytest

from service.store.log.events import Stream
from service.store.log.sqlite import SqliteLog
from tests.support.feedback_log_contract import GENESIS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.fixture
def log(path: Path) -> SqliteLog:
    return SqliteLog(path)


@pytest.fixture
def stream(log: SqliteLog) -> Stream:
    return log.open_stream("iris", 1, GENESIS, 3)
