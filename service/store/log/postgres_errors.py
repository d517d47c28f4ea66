"""The errors of a log in PostgreSQL.

None repeats a message of the server or of the driver, because those can hold values and addresses.
"""

import re
from typing import Final

from psycopg import pq
from psycopg.pq.abc import PGresult

from service.errors import LogDamagedError, LogError, LogFullError, LogUnavailableError, LogUnsafeError

# SQLSTATEs. The transaction was ended so that another could continue; it may be tried again.
CONFLICTS: Final = frozenset((b"23505", b"40001", b"40P01"))
NO_TABLES: Final = "the database has no feedback log of this release; run `softstep migrate`"
NO_STATEMENT: Final = "the pooler before the database keeps no prepared statements; unset SOFTSTEP_LOG_PREPARE"
# A retry fails until the database, its role or a setting is changed. 42501: the role owns neither the tables
# nor the database, and may make none since PostgreSQL 15. 26000 and 42P05: a statement that this session has prepared
# is not there, or another one has its name.
UNSAFE: Final = {
    **dict.fromkeys((b"42P01", b"42703", b"3F000"), NO_TABLES),
    **dict.fromkeys((b"26000", b"42P05"), NO_STATEMENT),
    b"42501": "the role may not use this database for a feedback log; let it own database and tables",
}
DAMAGED_FILES: Final = frozenset((b"XX001", b"XX002"))
DISK_FULL: Final = b"53100"
READ_ONLY: Final = b"25006"
UNREACHABLE: Final = "the feedback log's database cannot be reached; try again"
# What a server, libpq or psycopg says of a connection that failed, and what to do about it.
MISTAKES: Final = {
    re.compile('password authentication failed|no password supplied|role ".*" does not exist|no pg_hba.conf entry'): (
        "the feedback log's database refuses the role or its password; correct the address, or set PGPASSWORD"
    ),
    re.compile('database ".*" does not exist'): (
        "the feedback log's server has no database of that name; make it, then run `softstep migrate`"
    ),
    re.compile("could not translate host name|failed to resolve host"): (
        "the host of the feedback log's database is unknown; correct the address"
    ),
}


class ConnectionBrokenError(LogUnavailableError):
    """The connection broke, or the server did not answer in time, while statements were sent or answered."""


class StatementRefusedError(LogUnavailableError):
    """The server refused a statement; its transaction has changed nothing.

    Attributes:
        may_retry: Whether a concurrent transaction was the reason.
    """

    def __init__(self, message: str, *, may_retry: bool) -> None:
        super().__init__(message)
        self.may_retry = may_retry


def describe_failure(text: str) -> str:
    """Return the sentence about a connection that failed, given what the driver says.

    It names the mistakes of an address that is new. A server that speaks another language gets the general sentence.
    """
    found = (sentence for pattern, sentence in MISTAKES.items() if pattern.search(text))
    return next(found, UNREACHABLE)


def refusal_error(result: PGresult) -> LogError:
    """Return the error of a statement that the server refused."""
    state = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
    if state in UNSAFE:
        return LogUnsafeError(UNSAFE[state])
    if state in DAMAGED_FILES:
        return LogDamagedError("the feedback log's database is damaged; restore a backup")
    if state == DISK_FULL:
        return LogFullError("the disk of the feedback log's database is full; nothing was written")
    if state == READ_ONLY:
        return StatementRefusedError("the feedback log's database accepts no writes now; try again", may_retry=False)
    message = f"the feedback log's database refused with SQLSTATE {state.decode()}; try again"
    return StatementRefusedError(message, may_retry=state in CONFLICTS)
