"""The learner of a sparse model is killed, or its disk fails, between a base and the changes that name it.

A snapshot of a sparse model is two files: a base, whole weights, and what has changed since. The learner follows events
that change an eighth of the columns again and again, so it writes many bases. It is killed (-9) where it enters a
system call that writes, syncs, renames, opens or removes, or that call returns EIO or ENOSPC, once or from then on: the
first call, the second, and so on until no call is left.

Then a service starts on what is left, with a disk that works, and everything is sent again. Each event must be there
once, at its seq. The learner, run to its end, must publish and checkpoint the fold of the lineage, to the bit. No base
may be left but the first one and those that a snapshot names, and all must be intact.
"""

import random
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from service.commands.serve import open_data
from service.process.shared_memory import SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.mapped_artifact import BASE
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory, StreamFolder
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, dump_seq
from service.store.log.events import Draft, EventLocation, Kind
from service.store.log.sqlite import SqliteLog
from service.store.states.bases import encode_first_base
from service.store.states.snapshots import name_base, read_base, read_fields
from service.store.states.state_folder import list_seqs
from tests.support.data_directories import LIMIT
from tests.torture.checker import EVENTS_MAX, check_states
from tests.torture.disk_workload import SPARSE
from tests.torture.fault_injection import BROKEN, Child, Injection, Strace
from tests.torture.learner_runs import FINISH_SECONDS, finish_learning, has_published, run_learner, stop_learner
from tests.torture.results import ResultRow
from tests.torture.scenario import scenario_settings
from tests.torture.sweeps import Count, Sweep, run_sweeps, sample_seeds

FIRST: Final = name_base(encode_first_base(SPARSE.artifact)[0])
CALLS: Final = ("write", "fsync", "rename", "openat", "unlink")
SEEDS: Final = 2
# The fault, whether it lasts, the distance between calls, and the cases that a whole run must reach.
FAULTS: Final = (
    ("signal=KILL", False, 1, 200),
    ("error=ENOSPC", False, 3, 60),
    ("error=ENOSPC", True, 3, 60),
    ("error=EIO", False, 3, 60),
    ("error=EIO", True, 3, 60),
)
NAMES: Final = {"signal=KILL": "kill -9", "error=ENOSPC": "ENOSPC", "error=EIO": "EIO"}
# A learner whose disk no longer works publishes nothing more.
FOREVER_SECONDS: Final = 0.1


def run_campaign(folder: Path, share: float) -> Iterator[ResultRow]:
    """Run a share of the campaign in a folder."""
    counts = run_sweeps(folder, list(sweeps(share)))
    for fault, forever, _, target in FAULTS:
        name = _name(fault, forever=forever)
        yield counts.get(name, Count()).row(f"{name} of the learner of a sparse model", target)


def sweeps(share: float) -> Iterator[Sweep]:
    """Yield the sweeps for a share of the campaign."""
    seeds, stride = sample_seeds(SEEDS, share)
    for seed in range(seeds):
        for number, call in enumerate(CALLS):
            for fault, forever, distance, _ in FAULTS:
                case = partial(learn_case, seed, Injection(call, fault, 1, forever))
                step = distance * stride
                start = 1 + (number + seed + forever) % step
                yield Sweep(_name(fault, forever=forever), f"{call} {seed}", case, start, step)


def _name(fault: str, *, forever: bool) -> str:
    return f"{NAMES[fault]} {'from one call on' if forever else 'at one call'}"


def make_drafts(seed: int) -> list[list[Draft]]:
    """Return batches of feedback, and of admin events between them, for stream 1."""
    rng, batches, ids, classes = random.Random(seed), [], [], 3
    admin = [Kind.FORGET, Kind.CLASSES, Kind.ROLLBACK, Kind.CONFIGURE]
    rng.shuffle(admin)
    for number in range(6):
        batch = []
        for n in range(rng.randint(1, 3)):
            ids.append(b"%d-%d" % (number, n))
            payload = SPARSE.make_rows(100 * seed + len(ids), classes)
            batch.append(Draft(1, Kind.FEEDBACK, ids[-1], payload, 1))
        batches.append(batch)
        if number and admin:
            kind = admin.pop()
            payload = {
                Kind.FORGET: dump_forget_ids([rng.choice(ids)]),
                Kind.CLASSES: dump_classes(["new"]),
                Kind.ROLLBACK: dump_seq(rng.randint(0, 4)),
                Kind.CONFIGURE: dump({"shadow": True}),
            }[kind]
            batches.append([Draft(1, kind, kind.name.encode(), payload, 1)])
            classes = {Kind.CLASSES: classes + 1, Kind.ROLLBACK: 3}.get(kind, classes)
    return batches


def learn_case(seed: int, injection: Injection, folder: Path, at: int) -> bool:
    """Let a fault meet the learner while others append; check what is left."""
    settings, batches = scenario_settings(folder), make_drafts(seed)
    data = DataDirectory(settings.data)
    stream_folder = data.stream_folder("iris", 1)  # the name that the other campaigns use too
    stream_folder.path.mkdir(parents=True)
    bind_artifact(stream_folder, SPARSE.artifact, LIMIT)
    wakeup = Wakeup()
    with closing(SqliteLog(data.log)) as log:
        log.open_stream("iris", 1, compute_genesis(SPARSE.artifact), 3)
        child = Child(partial(run_learner, settings, SharedMemory(1, 8), wakeup))
        strace = Strace(child.pid, injection._replace(at=at), folder / "trace")
        child.start()
        for batch in batches:
            log.append(batch)
            wakeup.notify()
            last = log.stream_state(1).seq
            deadline = time.monotonic() + (FOREVER_SECONDS if injection.forever else FINISH_SECONDS)
            while not child.has_ended() and not has_published(settings, last) and time.monotonic() < deadline:
                time.sleep(0.001)
            assert injection.forever or child.has_ended() or time.monotonic() < deadline, (
                "the learner makes no progress"
            )
        stored = {event.id: event.seq for event in log.read_events(1, 0, EVENTS_MAX)}
    stop_learner(child)
    result = child.wait(strace)
    assert result.code != BROKEN, result.lines
    check(settings, batches, stored)
    return result.hit


def check(settings: Settings, batches: list[list[Draft]], stored: dict[bytes, int]) -> None:
    """Start on what a fault left, send everything again, and check the states that the learner ends with.

    Args:
        settings: Settings with the data directory.
        batches: Everything that was sent.
        stored: The seq of each event by its id.

    Raises:
        AssertionError: A promise is broken.
        SoftstepError: The service does not start, or the log is damaged.
    """
    with open_data(settings) as data:
        assert data is not None
        with closing(SqliteLog(data.log)) as log:
            for draft in (draft for batch in batches for draft in batch):
                (outcome,) = log.append([draft])
                if draft.id in stored:
                    assert isinstance(outcome, EventLocation), "a retry was rejected"
                    assert (outcome.duplicate, outcome.seq) == (True, stored[draft.id]), "a retry has another seq"
            state = log.stream_state(1)
            payload = SPARSE.make_rows(7, state.n_classes)
            log.append([Draft(1, Kind.FEEDBACK, b"last", payload, 1)])
            last, epoch = log.stream_state(1).seq, state.epoch
        finish_learning(settings, last, epoch)
        with closing(SqliteLog(data.log)) as log:
            (stream,) = log.list_streams()
            check_states(data, stream, log.read_events(1, 0, EVENTS_MAX), SPARSE.artifact)
        check_bases(data.stream_folder("iris", 1))


def check_bases(folder: StreamFolder) -> None:
    """Check that the bases are the first one and those that snapshots name, all intact, and no file is temporary."""
    named = {str(read_fields(folder.snapshots / str(seq)).get(BASE)) for seq in list_seqs(folder.snapshots)}
    assert {path.name for path in folder.bases.iterdir()} == named | {FIRST}, "other bases are left"
    for path in folder.bases.iterdir():
        read_base(path)
