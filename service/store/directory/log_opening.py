"""Open the feedback log that the settings name: SQLite in the data directory, or PostgreSQL."""

from contextlib import closing
from typing import Any, Final

from service.optional_packages import resolve_optional
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.log.facts_opening import COPIES, POSTGRES_EXTRA
from service.store.log.feedback_log import FeedbackLog
from service.store.log.log_connection import Generation
from service.store.log.sqlite import SqliteLog

# Imported only where it is used, because its driver is not part of every installation.
POSTGRES_END: Final = "service.store.log.postgres_migration:PostgresEnd"
POSTGRES_LOG: Final = "service.store.log.postgres:PostgresLog"


def open_log(settings: Settings, data: DataDirectory, faults: Generation | None = None) -> FeedbackLog:
    """Open the log; every process and every thread opens its own, after the fork.

    Args:
        settings: Where it is, and its limits.
        data: The data directory.
        faults: Counts the disk faults of all processes that use a log in the data directory.

    Raises:
        SoftstepError: The packages of the log are not installed.
        LogError: The log cannot be used. One in PostgreSQL is connected to by its first use.
    """
    if settings.log is None:
        return SqliteLog(
            data.log, faults, reserve_bytes=settings.disk_reserve_bytes, wal_bytes_max=settings.wal_bytes_max
        )
    make = resolve_optional(POSTGRES_LOG, "softstep serve --log", POSTGRES_EXTRA)
    copies, address = COPIES[settings.log_copies], settings.log.get_secret_value()
    log: FeedbackLog = make(address, copies=copies, seconds=settings.log_seconds, prepares=settings.log_prepare)
    return log


def open_database_end(settings: Settings, address: str, command: str) -> Any:  # noqa: ANN401  # a PostgresEnd
    """Return a database as one end of a migration; it must be closed.

    Args:
        settings: The limits of the log.
        address: The address of the database.
        command: The command that needs it, for the error.

    Raises:
        SoftstepError: The packages of the log are not installed.
        LogUnsafeError: The address cannot be parsed.
    """
    make = resolve_optional(POSTGRES_END, command, POSTGRES_EXTRA)
    return make(address, COPIES[settings.log_copies], settings.log_seconds)


def refuse_replicas(settings: Settings) -> None:
    """Raise LogUnavailableError if a service uses the log in PostgreSQL that the settings name, if they do."""
    if settings.log is not None:
        with closing(open_database_end(settings, settings.log.get_secret_value(), "softstep purge")) as database:
            database.refuse_services()
