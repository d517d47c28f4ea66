"""What a connection is set to, each by what it is for and not by the table that sets it."""

from pathlib import Path

import pytest

from service.store.log import tables
from service.store.log.database import PRAGMAS, open_database

SAFE = {
    "journal_mode": "wal",  # one writer and its readers do not wait for each other
    "synchronous": 2,  # an acknowledged commit is on the disk
    "fullfsync": 1,
    "checkpoint_fullfsync": 1,
    "wal_autocheckpoint": 0,  # a commit never pays for a checkpoint
    "journal_size_limit": 64 << 20,
    "secure_delete": 1,  # what was forgotten is overwritten
    "cell_size_check": 1,  # a page whose cells overlap is told as it is read
    "trusted_schema": 0,
    "mmap_size": 0,  # an error of the disk is an error and not the end of the process
    "cache_size": -32768,
}


@pytest.mark.parametrize("name", SAFE)
def test_a_connection_keeps_what_it_promises(tmp_path: Path, name: str) -> None:
    """Every setting has the value that the promises rest on, in the connection itself."""
    database = open_database(tmp_path / "log.sqlite", tables.create_tables)
    assert database.pragma(name) == SAFE[name]
    database.close()


def test_every_setting_is_known_here() -> None:
    """One that is added or left out is added or left out here too."""
    assert [name for name, _, _ in PRAGMAS] == list(SAFE)
