"""Open the facts of the log in PostgreSQL that the settings name, without the log itself and its kernels."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service.optional_packages import resolve_optional
from service.settings import Settings
from service.store.log.shared_facts import SharedFacts

# Imported only where it is used, because its driver is not part of every installation.
POSTGRES_FACTS: Final = "service.store.log.postgres_facts:connect_facts"
POSTGRES_EXTRA: Final = "postgres"
# The numbers of copies by the values of the setting; None if PostgreSQL does not know of them.
COPIES: Final = {"1": 1, "2": 2, "external": None}


@contextmanager
def open_facts(settings: Settings, address: str, command: str) -> Iterator[SharedFacts]:
    """Open the facts of a log, which is connected to by the first use, until the end of the block.

    Args:
        settings: The limits of the log.
        address: The address of the database.
        command: The command that needs it, for the error.

    Raises:
        SoftstepError: The packages of the log are not installed.
        LogUnsafeError: The address cannot be parsed.
    """
    connect_facts = resolve_optional(POSTGRES_FACTS, command, POSTGRES_EXTRA)
    with connect_facts(address, COPIES[settings.log_copies], settings.log_seconds) as facts:
        yield facts
