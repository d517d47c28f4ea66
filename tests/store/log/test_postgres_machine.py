"""The log in PostgreSQL, the log in memory and a plain list agree at every step of random histories."""

from contextlib import ExitStack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from service.store.log import postgres_append
from service.store.log.feedback_log import FeedbackLog
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from tests.support.budgets import examples
from tests.support.log_machine import LogMachine, names, places
from tests.support.lost_answers import losing_answer
from tests.support.postgres_servers import PostgresCluster


class PostgresMachine(LogMachine):
    """The connection breaks at times, and every fault leads to another attempt at once."""

    cluster: PostgresCluster
    address: str
    optimistic = True

    def open_first(self) -> FeedbackLog:
        name = self.address.rpartition("/")[2]
        self.cluster.execute("TRUNCATE streams, events RESTART IDENTITY", database=name)
        self.faults = ExitStack()
        self.logs: list[PostgresLog] = []
        return self.open()

    def open(self) -> PostgresLog:
        self.logs.append(PostgresLog(self.address, copies=1, optimistic=self.optimistic))
        return self.logs[-1]

    def heal(self) -> None:
        self.faults.close()

    def end(self) -> None:
        for log in self.logs:
            log.close()

    @rule(at=places, id_=names, after=st.integers(0, 4), is_sent=st.booleans())
    def fail(self, at: int, id_: bytes, after: int, *, is_sent: bool) -> None:
        """The connection breaks somewhere in the next append, or never."""
        fault = losing_answer(after, is_sent=is_sent)
        self.append_with_fault(at, id_, lambda: self.faults.enter_context(fault))

    @rule(keep=st.booleans())
    def reopen(self, *, keep: bool) -> None:
        """A second object continues, and the first one later finds what it wrote."""
        if not keep:
            self.logs[0].close()
        self.logs.reverse()
        self.log = self.logs[0] if len(self.logs) > 1 else self.open()


@pytest.mark.parametrize("optimistic", [True, False])
def test_histories_agree(
    postgres_server: PostgresCluster, monkeypatch: pytest.MonkeyPatch, *, optimistic: bool
) -> None:
    # Or else the locked way would be taken for the rest of a history.
    monkeypatch.setattr(postgres_append, "LOCKED_SECONDS", 0.0)
    address = postgres_server.make_database(create_schema)
    parts = {"cluster": postgres_server, "address": address, "optimistic": optimistic}
    run_state_machine_as_test(
        type("Machine", (PostgresMachine,), parts),
        settings=settings(max_examples=examples(40), stateful_step_count=40, deadline=None),
    )
    postgres_server.drop_database(address)
