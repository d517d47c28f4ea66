"""The connection of one process or thread to PostgreSQL, which may fail, move to another server and come back.

Every call has a deadline. At the deadline the socket is closed. A cancel request is never sent: PostgreSQL answers one
that arrives while COMMIT waits for a standby with success and a warning, and the transaction may then be lost.

state      what follows
closed     the next call connects, unless the last attempt failed moments ago: then it fails at once
open       used for each call; statements of a call are sent in one pipeline, which ends in one synchronization
broken     a call passed its deadline, or the server closed the connection: it is closed here too

No state is kept in a session, such as an advisory lock, so a pooler of transactions may be in between. Statements are
prepared only if asked for (postgres_prepared.py). The server's messages are dropped, because they can repeat values: an
error has a sentence of this module.
"""

import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import SystemRandom
from typing import Any, Final

import psycopg
from psycopg import generators, pq, waiting
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict, make_conninfo
from psycopg.pq.abc import PGconn, PGresult

from service.errors import LogError, LogUnavailableError, LogUnsafeError, OutcomeUnknownError
from service.store.log.postgres_errors import UNREACHABLE, ConnectionBrokenError, describe_failure, refusal_error
from service.store.log.postgres_prepared import StatementQueue
from service.store.log.postgres_values import Statement

# Between attempts to connect, in seconds: doubled from the first to the last, and then up to half of it is left out by
# chance, so that the replicas of a service do not all come back at one moment.
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5
SHORTEST_WAIT: Final = 0.05
# How often a wait looks at its deadline, in seconds.
WAIT_INTERVAL: Final = 0.1
# Defaults of an address: a standby is never read, and text is Unicode.
DEFAULTS: Final = {"target_session_attrs": "read-write", "client_encoding": "UTF8", "application_name": "softstep"}

BEGIN: Final = Statement(b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
BEGIN_READ: Final = Statement(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
COMMIT: Final = Statement(b"COMMIT")
ROLLBACK: Final = Statement(b"ROLLBACK")
# After COMMIT: whether it has waited for a standby, and for its own disk. COMMIT waits if a flag in the server's memory
# says that standbys are named. Another process sets that flag a moment before or after a session sees the names, so the
# names count only if no configuration was loaded within the last second.
ASK_DURABILITY: Final = Statement(
    b"SELECT current_setting('synchronous_standby_names') <> ''"
    b" AND pg_conf_load_time() < clock_timestamp() - interval '1 s', current_setting('synchronous_commit')"
)
SYNCED: Final = frozenset(("on", "remote_apply"))
SYNCED_ALONE: Final = SYNCED | {"local", "remote_write"}

BROKEN: Final = "the feedback log's database did not answer; try again"

_random: Final = SystemRandom()


class PostgresConnection:
    """A connection that is opened when necessary. One thread at a time uses it.

    Args:
        address: The URI of the database; it may hold a password, and is never part of an error.
        copies: Nodes that must have an event before it is acknowledged: 2 or more require that the server names
            synchronous standbys; None: the storage replicates by itself.
        seconds: The deadline of a call.
        prepares: Whether statements are prepared.

    Attributes:
        opened: How often it was opened.
        seconds: The deadline of a call.

    Raises:
        LogUnsafeError: The address cannot be parsed.
    """

    def __init__(self, address: str, copies: int | None, seconds: float, *, prepares: bool = False) -> None:
        try:
            self._parameters = {**DEFAULTS, **conninfo_to_dict(address)}
        except psycopg.Error:
            raise LogUnsafeError("the address of the feedback log is not a valid address of PostgreSQL") from None
        self.opened = 0
        self._needs_standby = copies is not None and copies > 1
        self.seconds: Final = seconds
        self._deadline = 0.0
        self._pgconn: PGconn | None = None
        self._transformer = Transformer()
        self._queue: Final = StatementQueue(prepares=prepares)
        self._in_transaction = False
        self._warned = False
        self._pause = FIRST_PAUSE
        self._retry_at = 0.0
        self._failure = UNREACHABLE  # the sentence about the last attempt to connect

    @contextmanager
    def call(self, seconds: float | None = None) -> Iterator[None]:
        """Begin a call, whose deadline ends all that it runs. A transaction that it leaves open is rolled back.

        Args:
            seconds: The deadline of a call that takes longer than others.
        """
        self._deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        try:
            yield
        finally:
            self._leave_transaction()

    def run(self, *statements: Statement) -> list[PGresult]:
        """Run statements in one pipeline, and return their results.

        Raises:
            ConnectionBrokenError: The connection broke meanwhile, or the deadline passed.
            LogError: The database cannot be reached, or has refused a statement.
        """
        results = self._exchange(self._open(), statements)
        self._raise_refusal(results)
        return results

    def query(self, statement: Statement) -> list[Any]:
        """Run one statement, and return its rows as tuples."""
        return self.rows(self.run(statement)[0])

    def rows(self, result: PGresult) -> list[Any]:
        """Return the rows of a result as tuples."""
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)

    def commit(self, *statements: Statement) -> list[PGresult]:
        """Run statements that end in a COMMIT, and return their results once as many nodes as needed have it.

        Raises:
            OutcomeUnknownError: The transaction may be committed or not, or is not on enough nodes.
            LogError: As for `run`; the transaction is not committed.
        """
        pgconn = self._open()
        self._warned = False
        try:
            results = self._exchange(pgconn, (*statements, COMMIT, ASK_DURABILITY))
        except ConnectionBrokenError:
            raise OutcomeUnknownError("the database did not answer; send the event again, with the same id") from None
        self._raise_refusal(results[: len(statements)])
        committed, asked = results[len(statements) :]
        if self._warned or committed.command_status != b"COMMIT" or not self._is_durable(asked):
            self.close()
            raise OutcomeUnknownError("no standby has confirmed the event; send it again, with the same id")
        return results[: len(statements)]

    def close(self) -> None:
        """Close the socket; the next call connects again."""
        if self._pgconn is not None:
            self._pgconn.finish()
        self._pgconn, self._in_transaction = None, False

    def _is_durable(self, asked: PGresult) -> bool:
        if asked.status != pq.ExecStatus.TUPLES_OK:
            return False
        ((has_standbys, synced),) = self.rows(asked)
        return has_standbys and synced in SYNCED if self._needs_standby else synced in SYNCED_ALONE

    def _exchange(self, pgconn: PGconn, statements: Sequence[Statement]) -> list[PGresult]:
        """Send statements and receive a result of each; those after the first that failed were not run."""
        try:
            pgconn.enter_pipeline_mode()
            self._queue.send(pgconn, statements)
            pgconn.pipeline_sync()
            receiving = _receive(pgconn, self._queue.results)
            left = max(0.0, self._deadline - time.monotonic())
            received = waiting.wait(receiving, pgconn.socket, interval=WAIT_INTERVAL, timeout=left)
            pgconn.exit_pipeline_mode()
        except psycopg.Error:
            self.close()
            raise ConnectionBrokenError(BROKEN) from None
        except BaseException:
            self.close()
            raise
        self._in_transaction = pgconn.transaction_status != pq.TransactionStatus.IDLE
        return self._queue.results_of(received)

    def _raise_refusal(self, results: Sequence[PGresult]) -> None:
        """Raise the error of the first statement that was refused, if one was."""
        for result in results:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                self._leave_transaction()
                raise refusal_error(result)

    def _open(self) -> PGconn:
        """Return the connection, opened if necessary, unless the deadline has passed: then nothing is sent."""
        if time.monotonic() >= self._deadline:
            self.close()
            raise ConnectionBrokenError(BROKEN)
        if self._pgconn is not None and _is_quiet(self._pgconn):
            return self._pgconn
        was_in_transaction = self._in_transaction
        self.close()
        if was_in_transaction:
            raise ConnectionBrokenError(BROKEN)  # what follows belongs to a transaction that the server has ended
        if time.monotonic() < self._retry_at:
            raise LogUnavailableError(self._failure)
        try:
            self._pgconn = self._connect()
        except (psycopg.Error, OSError, UnicodeError) as error:
            self._retry_at = time.monotonic() + self._pause * _random.uniform(0.5, 1)
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
            self._failure = describe_failure(str(error))
            raise LogUnavailableError(self._failure) from None
        self._pause = FIRST_PAUSE
        self._queue.forget()
        self.opened += 1
        return self._pgconn

    def _connect(self) -> PGconn:
        """Connect to the first server of the address that accepts, each in its part of the time."""
        attempts = conninfo_attempts(self._parameters)
        for left, attempt in zip(range(len(attempts), 0, -1), attempts, strict=True):
            seconds = max(SHORTEST_WAIT, (self._deadline - time.monotonic()) / left)
            try:
                connecting = generators.connect(make_conninfo("", **attempt))
                pgconn: PGconn = waiting.wait_conn(connecting, interval=WAIT_INTERVAL, timeout=seconds)
            except psycopg.Error:
                if left == 1:
                    raise
            else:
                pgconn.notice_handler = self._note_warning
                return pgconn
        raise OSError

    def _note_warning(self, notice: PGresult) -> None:
        self._warned |= notice.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) == b"WARNING"

    def _leave_transaction(self) -> None:
        """Roll back what is open, or close the connection if that cannot be done in time."""
        if self._in_transaction and self._pgconn is not None:
            try:
                self._exchange(self._pgconn, (ROLLBACK,))
            except LogError:
                self.close()


def _receive(pgconn: PGconn, count: int) -> PQGen[list[PGresult]]:
    """Flush what is queued, and receive the results of a pipeline, up to its end."""
    yield from generators.send(pgconn)
    results: list[PGresult] = []
    for _ in range(count):
        results += yield from generators.fetch_many(pgconn)
    yield from generators.fetch_many(pgconn)  # the synchronization
    return results


def _is_quiet(pgconn: PGconn) -> bool:
    """Return whether an idle connection is open: a server sends nothing then but a reason why it closes it."""
    if pgconn.status != pq.ConnStatus.OK:
        return False
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    return not poll.poll(0)
