"""One bit of a file is flipped before the service starts.

A data directory is made that holds one of everything: events in the database and in the write-ahead log, ids in their
index, retries, forgotten and rolled-back events, classes, checkpoints, snapshots, marks, and the bound artifact.
Another is of a sparse model, with bases that its snapshots name. One bit is flipped in a copy. Then the service starts
as `softstep serve` does, and the latest snapshot is read as workers read it. The learner folds what is left, publishes
it, and rolls back to an earlier state. Every event is sent again. In another copy `softstep verify --refold` runs.

A flip is detected if one of them reports an error of the service's own types. It is harmless if everything is as
before, also because a damaged file was ignored and rebuilt. Other weights or seqs without an error, and errors of other
types, are violations. The pages of the id index have no checksum: a retry that gets another answer is counted, and is a
violation only if `verify` does not report it.
"""

import io
import random
import shutil
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from service.commands import verify
from service.commands.serve import open_data
from service.errors import SoftstepError
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.hashing import hash_weights
from service.store.artifact.model_factory import restore_parameters
from service.store.directory.ack_marks import AckMarks
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, dump_seq
from service.store.log.correction_payload import encode_correction
from service.store.log.events import Draft, Event, EventLocation, Kind
from service.store.log.feedback_log import read_position
from service.store.log.feedback_payload import Targets, parse_layout
from service.store.log.sqlite import SqliteLog
from service.store.states.state_folder import list_seqs, read_latest
from tests.torture.disk_workload import (
    ACTORS,
    BYTES_MAX,
    InlineLearner,
    ModelWorkload,
    open_log,
    workload_settings,
)
from tests.torture.flip_positions import anywhere, index_pages
from tests.torture.flip_targets import LOG, TARGETS, Target
from tests.torture.reference_state import fold_lineage, state_hash
from tests.torture.results import ResultRow

ROLLBACK_SEQ: Final = 30
PAGE_BYTES: Final = 4096


class UndetectedError(Exception):
    """Something differs, and nothing reported it."""


@dataclass(frozen=True)
class IntactDirectory:
    """The content of a data directory without damage.

    Attributes:
        root: The folder that holds it.
        model: The model that its stream is about.
        drafts: What was sent, by seq from 1.
        events: The events of its log.
        state: The hash of the fold of all events.
        rolled_back: The hash of the fold after a rollback to ROLLBACK_SEQ.
        served: The hash of the served weights at the seq of each snapshot.
    """

    root: Path
    model: ModelWorkload
    drafts: list[Draft]
    events: list[Event]
    state: str
    rolled_back: str
    served: dict[int, str]


def make_directory(root: Path, model: ModelWorkload, *, wal_is_moved: bool) -> IntactDirectory:
    """Make a data directory; `wal_is_moved` says whether the write-ahead log is moved into the database at the end."""
    with open_data(workload_settings(root)) as data:
        assert data is not None
        folder = data.stream_folder("m", 1)
        bind_artifact(folder, model.artifact, BYTES_MAX)
        with closing(open_log(data)) as log:
            stream = log.open_stream("m", 1, compute_genesis(model.artifact), 3)
            drafts = _append_everything(log, stream.number, model, InlineLearner(stream, folder, log))
            if wal_is_moved:
                log.empty_wal()
            # The marks of two workers, one of which has written nothing for long.
            for slot, seq in enumerate((60, len(drafts))):
                marks = AckMarks(data.mark_file(slot), {stream.number})
                for at in (seq - 5, seq):
                    marks.write_mark(stream.number, read_position(log, stream, at))
                marks.close()
            events = log.read_events(stream.number, 0, 9999)
            wanted = (*list_seqs(folder.snapshots), len(events), ROLLBACK_SEQ)
            states = {seq: fold_lineage(model.artifact, events, seq) for seq in wanted}
    served = {seq: hash_weights(fold.state.served_parameters()) for seq, fold in states.items()}
    return IntactDirectory(
        root, model, drafts, events, state_hash(states[len(events)]), state_hash(states[ROLLBACK_SEQ]), served
    )


def _append_everything(log: SqliteLog, stream: int, model: ModelWorkload, learner: InlineLearner) -> list[Draft]:
    """Append events of every kind, with snapshots and checkpoints between them; return the drafts."""
    drafts: list[Draft] = []

    def append(kind: Kind, payload: bytes) -> None:
        actor = ACTORS[len(drafts) % len(ACTORS)]
        drafts.append(Draft(stream, kind, b"event-%d" % len(drafts), payload, 7, actor=actor))
        log.append(drafts[-1:])

    def append_feedback(count: int, classes: int) -> None:
        for _ in range(count):
            append(Kind.FEEDBACK, model.make_rows(len(drafts), classes))

    append_feedback(40, 3)
    learner.learn()
    append(Kind.FORGET, dump_forget_ids([b"event-3", b"event-33"]))
    learner.learn()
    append(Kind.CLASSES, dump_classes(["new"]))
    append_feedback(20, 4)
    append(Kind.ROLLBACK, dump_seq(50))
    append(Kind.SKIP, dump({"seq": 45}))
    learner.learn()
    log.empty_wal()
    append_feedback(10, 4)
    append(Kind.CONFIGURE, dump({"rule": "ftrl"}))
    learner.learn()
    append(Kind.CORRECT, encode_correction(7, parse_layout(drafts[6].payload), Targets.INDEX, np.array([2, 1])))
    learner.learn()
    append_feedback(15, 4)
    learner.learn(checkpoint=False)
    return drafts


def classify_damage(intact: IntactDirectory, damaged: Path, second_copy: Path) -> str:
    """Serve from one damaged directory, and verify an equal one.

    Returns:
        "harmless", or what detected the damage.

    Raises:
        UndetectedError: Something differs, and nothing reported it.
    """
    detected_by = ""
    try:
        serve_and_compare(intact, damaged)
    except SoftstepError as reason:
        detected_by = f"the start ({type(reason).__name__})"
    except UndetectedError as violation:
        if "retry" not in str(violation) or not verify_reports_damage(second_copy):
            raise
        return f"verify alone: {violation}"
    except Exception as error:
        raise UndetectedError(f"the service raised {type(error).__name__}") from error
    try:
        is_reported = verify_reports_damage(second_copy)
    except Exception as error:
        raise UndetectedError(f"verify raised {type(error).__name__}") from error
    if not detected_by and not is_reported:
        compare_events(intact, second_copy)
    return detected_by or ("verify" if is_reported else "harmless")


def compare_events(intact: IntactDirectory, root: Path) -> None:
    """Check that a log in which nothing found damage has the events that it had, with their actors."""
    with closing(SqliteLog(workload_settings(root).data / LOG)) as log:
        (stream,) = log.list_streams()
        if log.read_events(stream.number, 0, 9999) != intact.events:
            raise UndetectedError("an event differs")


def serve_and_compare(intact: IntactDirectory, root: Path) -> None:
    """Start the service in this process, and compare everything it returns with the intact directory."""
    with open_data(workload_settings(root)) as data:
        assert data is not None
        with closing(open_log(data)) as log:
            (stream,) = log.list_streams()
            folder = data.stream_folder(stream.model, stream.version)
            check_served(intact, folder)
            learner = InlineLearner(stream, folder, log)
            learner.learn(checkpoint=False)
            check_served(intact, folder)
            if state_hash(learner.follower.fold) != intact.state:
                raise UndetectedError("the fold differs")
            log.append([Draft(stream.number, Kind.ROLLBACK, b"back", dump_seq(ROLLBACK_SEQ), 7)])
            learner.catch_up()
            if state_hash(learner.follower.fold) != intact.rolled_back:
                raise UndetectedError("the fold after a rollback differs")
            retry_everything(intact, log)


def check_served(intact: IntactDirectory, folder: StreamFolder) -> None:
    """Check that workers serve the weights of the newest snapshot that they can read."""
    newest = read_latest(folder.snapshots)
    if newest is not None:
        seq, snapshot = newest
        parameters = restore_parameters(intact.model.artifact.manifest, snapshot.arrays, snapshot.fields["clips"])
        if hash_weights(parameters) != intact.served.get(seq):
            raise UndetectedError("other weights are served")


def retry_everything(intact: IntactDirectory, log: SqliteLog) -> None:
    """Check that each retry gets its seq, and that a new event gets the next one."""
    last = len(intact.drafts)
    for seq, draft in enumerate(intact.drafts, 1):
        (outcome,) = log.append([draft])
        if not isinstance(outcome, EventLocation):
            raise UndetectedError("a retry is rejected")
        if (outcome.duplicate, outcome.seq) != (True, seq):
            raise UndetectedError("a retry counts as a new event")
    (outcome,) = log.append([intact.drafts[0]._replace(id=b"a new id")])
    if not isinstance(outcome, EventLocation) or (outcome.duplicate, outcome.seq) != (False, last + 2):
        raise UndetectedError("a new event counts as a retry")


def verify_reports_damage(root: Path) -> bool:
    """Return whether `softstep verify --refold` reports damage."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            return bool(verify.run(workload_settings(root), Namespace(json=False, refold=True)))
        except SoftstepError:
            return True


def run_campaign(folder: Path, share: float = 1.0) -> Iterator[ResultRow]:
    """Run a share of the campaign in a folder."""
    rng = random.Random(5)
    copies = folder / "damaged", folder / "second copy"
    directories = {}
    for model, wal_is_moved in dict.fromkeys((target.model, target.files == LOG) for target in TARGETS):
        root = folder / f"intact {model.name} {wal_is_moved}"
        root.mkdir()
        directories[model.name, wal_is_moved] = intact = make_directory(root, model, wal_is_moved=wal_is_moved)
        for copy in copies:
            shutil.copytree(intact.root, copy)
        assert classify_damage(intact, *copies) == "harmless", "an intact directory counts as damaged"
        for copy in copies:
            shutil.rmtree(copy)
    for target in TARGETS:
        intact = directories[target.model.name, target.files == LOG]
        detections, violations = Counter[str](), Counter[str]()
        count = max(4, round(target.count * share))
        for _ in range(count):
            try:
                detections[flip_bit(intact, target, rng, *copies)] += 1
            except UndetectedError as violation:
                violations[str(violation)] += 1
        note = ", ".join(f"{number} {kind}" for kind, number in (*violations.most_common(), *detections.most_common()))
        yield ResultRow(f"a flipped bit in {target.name}", count, target.count, violations.total(), note)


def flip_bit(intact: IntactDirectory, target: Target, rng: random.Random, *copies: Path) -> str:
    """Flip one bit in copies of a directory; return the class of the damage."""
    path = rng.choice(sorted((intact.root / "data").glob(target.files)))
    content = bytearray(path.read_bytes())
    if target.name.endswith("id index"):
        page = rng.choice(index_pages(path)) * PAGE_BYTES
        at = page + anywhere(rng, bytes(content[page : page + PAGE_BYTES]))
    else:
        at = target.choose(rng, bytes(content))
    content[at] ^= 1 << rng.randrange(8)
    for copy in copies:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(intact.root, copy)
        (copy / path.relative_to(intact.root)).write_bytes(content)
    return classify_damage(intact, *copies)
