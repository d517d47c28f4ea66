"""The log is opened where the settings say, with their limits."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from service.errors import SoftstepError
from service.settings import Settings
from service.store.directory import log_opening
from service.store.directory.data_directory import DataDirectory
from service.store.directory.log_opening import open_log
from service.store.log.sqlite import SqliteLog

ADDRESS = "postgresql://me:secret@db.example/softstep"


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path / "data")


def test_without_an_address_the_log_is_in_the_data_directory(data: DataDirectory) -> None:
    log = open_log(Settings(data=data.path), data)
    assert isinstance(log, SqliteLog)
    assert log.path == data.log
    log.close()


@pytest.mark.parametrize(("setting", "copies"), [("1", 1), ("2", 2), ("external", None)])
def test_postgres_gets_its_address_and_limits(
    data: DataDirectory, monkeypatch: pytest.MonkeyPatch, setting: Any, copies: int | None
) -> None:
    """The class is found by its name, because its driver may not be installed."""
    made: list[Any] = []
    monkeypatch.setattr(log_opening, "POSTGRES_LOG", f"{__name__}:FakeLog")
    monkeypatch.setattr(FakeLog, "made", made)
    settings = Settings(data=data.path, log=SecretStr(ADDRESS), log_copies=setting, log_seconds=2, log_prepare=True)
    log: Any = open_log(settings, data)
    assert isinstance(log, FakeLog)
    assert made == [(ADDRESS, {"copies": copies, "seconds": 2.0, "prepares": True})]
    assert not data.log.exists()


def test_a_driver_that_is_missing_is_named(data: DataDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_opening, "POSTGRES_LOG", "no_such_driver:PostgresLog")
    with pytest.raises(SoftstepError, match=r"softstep\[postgres\]") as caught:
        open_log(Settings(data=data.path, log=SecretStr(ADDRESS)), data)
    assert "secret" not in str(caught.value)


class FakeLog(SimpleNamespace):
    """Notes how it is made."""

    made: ClassVar[list[Any]] = []

    def __init__(self, address: str, **limits: Any) -> None:
        super().__init__()
        self.made.append((address, limits))
