"""The promises that every case is checked against, after a service has started again on what the fault left.

    Each acknowledged event is there once, at its seq; every other event at most once, at one seq.
    Each event has the actor that it was posted with.
    Events are numbered 1, 2, 3, …; the chain, the ids and the file are intact.
    A retry of everything gives each event one seq; events that were there keep theirs.
    The learner, run to its end, publishes and checkpoints the fold of the lineage, to the bit.

The expected fold comes from reference_state.py, which uses nothing of the follower's folding and refolding.
"""

from contextlib import closing

import numpy as np

from service.commands.serve import open_data
from service.learn.publish import snapshot_contents
from service.learn.stream_history import PREFIX as HISTORY_PREFIX
from service.settings import Settings
from service.store.artifact.artifact import Artifact
from service.store.artifact.hashing import hash_tensors
from service.store.directory.data_directory import DataDirectory
from service.store.log.audit import audit_log
from service.store.log.events import Draft, Event, EventLocation, Kind, Stream
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.sqlite import SqliteLog
from service.store.states.served_state import as_whole
from service.store.states.state_folder import read_latest
from tests.torture.learner_runs import finish_learning
from tests.torture.reference_state import fold_lineage
from tests.torture.scenario import ARTIFACT, N, Step, drafts_of

EVENTS_MAX = 1 << 20

# The seqs under which each id was acknowledged.
Acknowledged = dict[str, set[int]]


def parse_acknowledged(*outputs: list[str]) -> Acknowledged:
    """Return the acknowledgements among the lines that processes emitted."""
    acknowledged: Acknowledged = {}
    for line in (line for output in outputs for line in output):
        word, *rest = line.split()
        if word == "ack":
            acknowledged.setdefault(rest[0], set()).add(int(rest[1]))
    return acknowledged


def check(
    settings: Settings, acknowledged: Acknowledged, steps: list[Step], others: frozenset[str] = frozenset()
) -> None:
    """Start on what a fault left, and check every promise.

    Args:
        settings: Settings with the data directory.
        acknowledged: The acknowledged events.
        steps: Everything that was posted.
        others: Ids of further events that may be there.

    Raises:
        AssertionError: A promise is broken.
        SoftstepError: The service does not start, or the log is damaged.
    """
    with open_data(settings) as data:
        assert data is not None, "the data directory is not writable"
        with closing(SqliteLog(data.log)) as log:
            streams = [stream for stream in log.list_streams() if stream.model == "iris"]
            if not streams:
                assert not acknowledged, f"the stream is missing with {len(acknowledged)} acknowledged events"
                return
            check_log(log, streams[0], acknowledged, steps, others)
            last = append_last(log, streams[0])
            epoch = log.stream_state(streams[0].number).epoch
        finish_learning(settings, last, epoch)
        with closing(SqliteLog(data.log)) as log:
            check_states(data, streams[0], log.read_events(streams[0].number, 0, EVENTS_MAX))


def check_log(
    log: SqliteLog, stream: Stream, acknowledged: Acknowledged, steps: list[Step], others: frozenset[str]
) -> None:
    """Check the promises about events, order and retries."""
    events = log.read_events(stream.number, 0, EVENTS_MAX)
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "seqs are not 1, 2, 3, …"
    stored = {event.id.decode(): event.seq for event in events}
    assert len(stored) == len(events), "an event is stored twice"
    found = {name: {stored.get(name)} for name in acknowledged}
    assert found == acknowledged, f"acknowledged events differ: {_difference(found, acknowledged)}"
    drafts = drafts_of(stream.number, steps)
    assert stored.keys() <= {draft.id.decode() for draft in drafts} | others, "an event was never posted"
    for _ in range(2):
        for draft in drafts:
            (outcome,) = log.append([draft])
            if isinstance(outcome, EventLocation):
                name = draft.id.decode()
                assert stored.setdefault(name, outcome.seq) == outcome.seq, f"a retry of {name} got another seq"
            else:
                assert draft.id.decode() not in stored, f"a retry was rejected: {outcome!r}"
    events = log.read_events(stream.number, 0, EVENTS_MAX)
    assert {event.id.decode(): event.seq for event in events} == stored, "a retry is not at its acknowledged seq"
    actors = {draft.id: draft.actor for draft in drafts}
    assert all(event.actor == actors.get(event.id, event.actor) for event in events), "an event has another actor"
    assert [event.seq for event in events] == list(range(1, len(stored) + 1)), "seqs are not 1, 2, 3, …"
    assert [seq for _, (seq, _) in audit_log(log, EVENTS_MAX)] == [len(stored)] * bool(stored), "the chain is broken"
    log.check_file()


def append_last(log: SqliteLog, stream: Stream) -> int:
    """Append one more event, which no learner has published yet, and return its seq."""
    payload = encode_rows(
        np.full((1, N), 3, np.float32), np.zeros(1, int), Targets.INDEX, log.stream_state(stream.number).n_classes
    )
    (outcome,) = log.append([Draft(stream.number, Kind.FEEDBACK, b"last", payload, 1)])
    assert isinstance(outcome, EventLocation), f"the log no longer accepts events: {outcome!r}"
    return outcome.seq


def check_states(data: DataDirectory, stream: Stream, events: list[Event], artifact: Artifact = ARTIFACT) -> None:
    """Check that the latest snapshot and the latest checkpoint are the reference state of the last event."""
    if not events:
        return
    fold = fold_lineage(artifact, events, len(events))
    folder = data.stream_folder(stream.model, stream.version)
    for files, (fields, arrays) in (
        (folder.snapshots, snapshot_contents(fold, {})),
        (folder.checkpoints, fold.checkpoint_contents()),
    ):
        found = read_latest(files)
        assert found is not None, f"no {files.name}"
        seq, snapshot = found[0], as_whole(found[1])
        assert seq == len(events), f"{files.name} end at {seq} of {len(events)}"
        state = {name: array for name, array in snapshot.arrays.items() if not name.startswith(HISTORY_PREFIX)}
        assert state.keys() == arrays.keys()
        hashes = {hash_tensors(tensors[name] for name in sorted(tensors)) for tensors in (state, arrays)}
        assert len(hashes) == 1, f"{files.name} have other arrays"
        assert {name: snapshot.fields[name] for name in fields} == fields, f"{files.name} have other fields"


def _difference(found: dict[str, set[int | None]], acknowledged: Acknowledged) -> str:
    return ", ".join(
        f"{name} acknowledged at {acknowledged[name]}, found at {found[name]}"
        for name in acknowledged
        if found[name] != acknowledged[name]
    )
