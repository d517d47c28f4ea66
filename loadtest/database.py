"""PostgreSQL on a disk of this machine, with a standby and Debian's settings, for the figures of its log."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service.store.log.postgres_schema import create_schema
from tests.support.postgres_servers import PostgresCluster, running_group

# Where the clusters of the tests differ from PostgreSQL's own defaults, which Debian keeps. They are small, and their
# pages have more in the write-ahead log, so that a lost primary can become a standby of the new one.
SETTINGS: Final = {"fsync": "on", "shared_buffers": "128MB", "wal_log_hints": "off"}


@contextmanager
def running_servers(*, synchronous: bool = True) -> Iterator[tuple[PostgresCluster, PostgresCluster]]:
    """Run a primary and a standby until the end of the block; `synchronous`: each COMMIT waits for the standby."""
    with running_group(SETTINGS, synchronous=synchronous, on_disk=True) as (primary, standby):
        yield primary, standby


@contextmanager
def empty_log() -> Iterator[str]:
    """Return the address of a database with an empty log, on two such servers that run until the end of the block."""
    with running_servers() as (primary, _):
        yield primary.make_database(create_schema)
