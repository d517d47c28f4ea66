"""What must hold after every case, once a service has started again on what was left.

    Each acknowledged event is there once, at the seq that was told; each other one at most once, at one seq.
    What is there is numbered 1, 2, 3, …; chain, ids and file are whole.
    A retry of everything gives each event one seq, and what was there keeps its own.
    The learner, run to its end, publishes and keeps exactly the fold of the lineage, to the bit.

The lineage is made here from its definition, with lists, and each event is folded alone from the artifact on; nothing
of how the learner follows, keeps and refolds is used.
"""

from contextlib import closing
from typing import NamedTuple

import numpy as np

from service.commands import serve
from service.learn.event_fold import EventFold
from service.learn.publish import snapshot_contents
from service.settings import Settings
from service.store.artifact.artifact import Artifact
from service.store.artifact.hashing import hash_tensors
from service.store.directory.data_directory import DataDirectory
from service.store.log.admin_payloads import parse_forget, parse_seq
from service.store.log.audit import audit_log
from service.store.log.events import Draft, Event, EventLocation, Kind, Stream
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import read_latest
from tests.torture.learner_runs import finish
from tests.torture.scenario import ARTIFACT, N, Step, drafts

EVENTS_MAX = 1 << 20

Acked = dict[str, set[int]]


class Chain(NamedTuple):
    """A lineage: its last event, and what comes before it."""

    seq: int
    before: "Chain | None"


def acked_in(*tellings: list[str]) -> Acked:
    """The seqs under which each id was acknowledged."""
    acked: Acked = {}
    for line in (line for telling in tellings for line in telling):
        word, *rest = line.split()
        if word == "ack":
            acked.setdefault(rest[0], set()).add(int(rest[1]))
    return acked


def check(settings: Settings, acked: Acked, steps: list[Step], others: frozenset[str] = frozenset()) -> None:
    """Start again on what is there, and hold it to what was acknowledged.

    Args:
        settings: Where the data is.
        acked: What was acknowledged.
        steps: Everything that was posted.
        others: Further ids that may be there.

    Raises:
        AssertionError: What must hold does not.
        SoftstepError: The service does not start, or the log is not what was written.
    """
    with serve.open_data(settings) as data:
        assert data is not None, "the data directory cannot be written"
        with closing(SqliteLog(data.log)) as log:
            streams = [stream for stream in log.list_streams() if stream.model == "iris"]
            if not streams:
                assert not acked, f"the stream is gone with {len(acked)} acknowledged events"
                return
            check_log(log, streams[0], acked, steps, others)
            last = append_last(log, streams[0])
            epoch = log.stream_state(streams[0].number).epoch
        finish(settings, last, epoch)
        with closing(SqliteLog(data.log)) as log:
            check_learned(data, streams[0], log.read_events(streams[0].number, 0, EVENTS_MAX))


def check_log(log: SqliteLog, stream: Stream, acked: Acked, steps: list[Step], others: frozenset[str]) -> None:
    """The first three."""
    events = log.read_events(stream.number, 0, EVENTS_MAX)
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "seqs are not 1, 2, 3, …"
    there = {event.id.decode(): event.seq for event in events}
    assert len(there) == len(events), "an event is there twice"
    told = {name: {there.get(name)} for name in acked}
    assert told == acked, f"acknowledged and not there as told: {_difference(told, acked)}"
    every = drafts(stream.number, steps)
    assert there.keys() <= {draft.id.decode() for draft in every} | others, "an event is there that nobody posted"
    for _ in range(2):
        for draft in every:
            (outcome,) = log.append([draft])
            if isinstance(outcome, EventLocation):
                name = draft.id.decode()
                assert there.setdefault(name, outcome.seq) == outcome.seq, f"a retry of {name} got another seq"
            else:
                assert draft.id.decode() not in there, f"a retry was refused: {outcome!r}"
    events = log.read_events(stream.number, 0, EVENTS_MAX)
    assert {event.id.decode(): event.seq for event in events} == there, "a retry is not there as told"
    assert [event.seq for event in events] == list(range(1, len(there) + 1)), "seqs are not 1, 2, 3, …"
    assert [seq for _, (seq, _) in audit_log(log, EVENTS_MAX)] == [len(there)] * bool(there), "the chain is not whole"
    log.check_file()


def append_last(log: SqliteLog, stream: Stream) -> int:
    """One more event, which nobody has published yet; its seq."""
    payload = encode_rows(
        np.full((1, N), 3, np.float32), np.zeros(1, int), Targets.INDEX, log.stream_state(stream.number).n_classes
    )
    (outcome,) = log.append([Draft(stream.number, Kind.FEEDBACK, b"last", payload, 1)])
    assert isinstance(outcome, EventLocation), f"no event is taken any more: {outcome!r}"
    return outcome.seq


def check_learned(data: DataDirectory, stream: Stream, events: list[Event]) -> None:
    """The fourth: what is served and what is kept is state(last) from its definition."""
    if not events:
        return
    fold, place = state_of(events), {}
    folder = data.stream_folder(stream.model, stream.version)
    fields, arrays = snapshot_contents(fold, place)
    kept_fields, kept_arrays = fold.checkpoint_contents()
    for files, wanted in ((folder.snapshots, arrays), (folder.checkpoints, kept_arrays)):
        found = read_latest(files)
        assert found is not None, f"no {files.name}"
        seq, snapshot = found
        assert seq == len(events), f"{files.name} end at {seq} of {len(events)}"
        assert snapshot.arrays.keys() == wanted.keys()
        hashes = {hash_tensors(all_[name] for name in sorted(all_)) for all_ in (snapshot.arrays, wanted)}
        assert len(hashes) == 1, f"{files.name} differ"
        told = fields if files is folder.snapshots else kept_fields
        assert {name: snapshot.fields[name] for name in told} == told, f"{files.name} say something else"


def state_of(events: list[Event], artifact: Artifact = ARTIFACT) -> EventFold:
    """state(last) from its definition: the events of the lineage, each alone, without those that are out."""
    # Of each seq the last event of its lineage, and the lineage before that one.
    lineages: list[Chain | None] = [None]
    out: set[int] = set()
    for event in events:
        payload = event.payload or b""
        match event.kind:
            case Kind.ROLLBACK:
                lineages.append(lineages[parse_seq(payload)])
            case Kind.FORGET:
                out.update(parse_forget(payload))
                lineages.append(lineages[-1])
            case Kind.SKIP:
                out.add(parse_seq(payload))
                lineages.append(lineages[-1])
            case _:
                lineages.append(Chain(event.seq, lineages[-1]))
    wanted, chain = [], lineages[-1]
    while chain is not None:
        wanted.append(chain.seq)
        chain = chain.before
    fold = EventFold(artifact)
    for seq in reversed(wanted):
        if seq not in out:
            fold.fold_events([events[seq - 1]])
    return fold


def _difference(told: dict[str, set[int | None]], acked: Acked) -> str:
    return ", ".join(f"{name} {acked[name]} is {told[name]}" for name in acked if told[name] != acked[name])
