"""The primary of a feedback log in PostgreSQL is killed, and its standby promoted, again and again.

Four writers append to one stream without a pause, two by the optimistic path and two by the locked one. All processes
of the primary are killed (-9); before every second kill the stream to its standby is stalled for 0.3 s, at either end.
The standby is promoted, and the killed server becomes its standby. A writer whose append failed sends the same ids
again until they are stored.

At the end the chain is verified. Each acknowledged event must be there once, at its seq.

The control is a primary whose COMMITs do not wait for the standby, with writers that accept that
(`SOFTSTEP_LOG_COPIES=1`). There the same checker must find losses.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from tests.support.postgres_servers import PostgresCluster, running_pair
from tests.support.waiting import wait_until
from tests.torture.log_writers import GENESIS, K, LogWriter, WriterState, find_violations
from tests.torture.results import ResultRow

SETTINGS = {"fsync": "on"}
WRITERS = 4
# Each episode has a database of its own, so that copies of it stay small.
EPISODE_KILLS = 26
KILLS, CONTROL_KILLS = 208, 20
TARGET_KILLS = 200
PAUSE_SECONDS = (0.3, 1.3)
# The processes that are stopped before a kill, in turn.
STALLS = ("walsender", "", "walreceiver", "")
STALL_SECONDS = 0.3
WAIT_SECONDS = 60.0
# Appends after each promotion before the next kill can come.
PROGRESS_EVENTS = 20


class Episode(NamedTuple):
    """The results of some kills of primaries of one database."""

    kills: int
    stalled: int
    state: WriterState
    violations: list[str]


def run_campaign(_folder: Path, share: float) -> Iterator[ResultRow]:
    """Run a share of the campaign; clusters have folders of their own."""
    kills = max(2, round(KILLS * share))
    parts = [min(EPISODE_KILLS, kills - done) for done in range(0, kills, EPISODE_KILLS)]
    yield _row([run_episode(part, seed) for seed, part in enumerate(parts)])
    yield _control_row(run_episode(max(2, round(CONTROL_KILLS * share)), len(parts), synchronous=False))


def run_episode(kills: int, seed: int, *, synchronous: bool = True) -> Episode:
    """Kill primaries of one database under writers, and check what is left."""
    rng, state = random.Random(seed), WriterState()
    stalls = STALLS if synchronous else ("walsender",)

    def wait() -> None:
        time.sleep(STALL_SECONDS)
        if not synchronous:
            wait_for_progress(state)  # events for the control to lose

    with running_pair(SETTINGS, synchronous=synchronous) as pair:
        servers = list(pair)
        address = shared_address(servers, servers[0].make_database(create_schema))
        open_log = partial(PostgresLog, address, copies=2 if synchronous else 1)
        with closing(open_log()) as log:
            stream = log.open_stream("iris", 1, GENESIS, K)
        writers = [
            LogWriter(state, partial(open_log, optimistic=number % 2 == 0), stream.number, number)
            for number in range(WRITERS)
        ]
        try:
            for writer in writers:
                writer.start()
            for number in range(kills):
                wait_for_progress(state)
                time.sleep(rng.uniform(*PAUSE_SECONDS))
                replace_primary(*servers, stalls[number % len(stalls)], wait, synchronous=synchronous)
                servers.reverse()
            wait_for_progress(state)
        finally:
            state.stop.set()
            for writer in writers:
                writer.join(WAIT_SECONDS)
        with closing(open_log()) as log:
            violations = find_violations(log, stream, state.acknowledged)
    stalled = sum(bool(stalls[number % len(stalls)]) for number in range(kills))
    return Episode(kills, stalled, state, violations + state.failures)


def shared_address(group: Sequence[PostgresCluster], address: str) -> str:
    """Return the address of a database on whichever server of a group is the primary."""
    user, _, rest = address.partition("@")
    hosts = ",".join(f"127.0.0.1:{cluster.port}" for cluster in group)
    return f"{user}@{hosts}/{rest.partition('/')[2]}?target_session_attrs=read-write"


def replace_primary(
    primary: PostgresCluster, standby: PostgresCluster, stalled: str, wait: Callable[[], None], *, synchronous: bool
) -> None:
    """Kill the primary, promote the standby, and make the killed one a standby of that.

    Args:
        primary: The primary.
        standby: Its standby.
        stalled: The process that is stopped before the kill; none if empty.
        wait: Waits between the two.
        synchronous: Whether the standby is a synchronous one.
    """
    server = {"walsender": primary, "walreceiver": standby}.get(stalled)
    with nullcontext() if server is None else server.paused(stalled):
        if stalled:
            wait()
        primary.kill()
    standby.promote()
    primary.follow(standby)
    standby.wait_for_standby(primary.name, "quorum" if synchronous else "async")


def wait_for_progress(state: WriterState) -> None:
    """Wait until further events are acknowledged."""
    before = len(state.acknowledged)
    wait_until(lambda: len(state.acknowledged) >= before + PROGRESS_EVENTS or bool(state.failures), WAIT_SECONDS)


def _row(episodes: list[Episode]) -> ResultRow:
    violations = [text for episode in episodes for text in episode.violations]
    states = [episode.state for episode in episodes]
    facts = (
        f"{sum(episode.stalled for episode in episodes)} after a stall of the stream; "
        f"{sum(len(state.acknowledged) for state in states):,} events acknowledged, "
        f"{sum(state.duplicates for state in states):,} of them to a retry whose first try was stored; "
        f"{sum(state.unknown for state in states):,} tries with unknown outcome"
    )
    return ResultRow(
        "kill -9 of the primary, promotion of its synchronous standby",
        sum(episode.kills for episode in episodes), TARGET_KILLS, len(violations), "; ".join([facts, *violations[:3]]),
    )  # fmt: skip


def _control_row(control: Episode) -> ResultRow:
    lost = len([text for text in control.violations if text.endswith("is lost")])
    note = f"control: {lost:,} of {len(control.state.acknowledged):,} acknowledged events are lost; there must be some"
    fault = "the same with an asynchronous standby"
    return ResultRow(fault, control.kills, CONTROL_KILLS, int(lost == 0), note)
