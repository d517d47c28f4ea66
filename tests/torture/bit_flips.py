"""One bit of a file is another one when the service starts.

A data directory is written with everything that there is in one: events in the database and in the write-ahead log,
ids in their index, retries, forgotten and rolled-back events, classes, checkpoints, snapshots, marks, and the bound
artifact. In a copy of it one bit is flipped. Then the service is started as `softstep serve` starts, the learner folds
what is left and is asked to go back to an earlier state, what workers would serve is read, and every event is sent
again; in another copy `softstep verify --refold` is run.

A flip is detected where any of them says so with an error of its own, or passes the file over and comes to the same by
another way; it is harmless where everything is as before. Weights or seqs that differ without a word, and errors of an
unexpected kind, are violations. Ids are looked for in an index whose pages have no checksum: how often a retry got
another answer is told, and is a violation where `verify` does not see it.
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

from service.commands import verify
from service.commands.serve import open_data
from service.errors import SoftstepError
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.hashing import hash_tensors
from service.store.directory.ack_marks import AckMarks
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, dump_seq
from service.store.log.events import Draft, Event, EventLocation, Kind
from service.store.log.feedback_log import read_position
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import list_seqs, read_latest
from tests.torture.disk_workload import ARTIFACT, BYTES_MAX, Learner, opened, rows, settings
from tests.torture.flip_positions import Place, anywhere, header, index_pages, marked, tensors
from tests.torture.reference_state import state, weights_of
from tests.torture.results import Line

BACK_TO: Final = 30


class WrongError(Exception):
    """What must hold does not, and nobody said so."""


@dataclass(frozen=True)
class Before:
    """What a whole data directory holds.

    Attributes:
        root: The folder that it is in.
        drafts: What was sent, by seq from 1.
        events: What is in its log.
        state: What the fold is.
        back: What it is after going back to BACK_TO.
        served: The hash of what is served at each seq that there is a snapshot of.
    """

    root: Path
    drafts: list[Draft]
    events: list[Event]
    state: str
    back: str
    served: dict[int, str]


def written(root: Path, *, moved: bool) -> Before:
    """Writes a data directory, with or without a write-ahead log behind the database, and tells what it holds."""
    drafts: list[Draft] = []
    with open_data(settings(root)) as data:
        assert data is not None
        folder = data.stream_folder("m", 1)
        folder.bind_artifact(ARTIFACT, BYTES_MAX)
        with closing(opened(data)) as log:
            stream = log.open_stream("m", 1, compute_genesis(ARTIFACT), 3)
            learner = Learner(stream, folder, log)

            def append(kind: Kind, payload: bytes) -> None:
                drafts.append(Draft(stream.number, kind, b"event-%d" % len(drafts), payload, 7))
                log.append(drafts[-1:])

            def teach(count: int, classes: int) -> None:
                for _ in range(count):
                    append(Kind.FEEDBACK, rows(len(drafts), classes))

            teach(40, 3)
            learner.follow()
            append(Kind.FORGET, dump_forget_ids([b"event-3", b"event-33"]))
            learner.follow()
            append(Kind.CLASSES, dump_classes(["new"]))
            teach(20, 4)
            append(Kind.ROLLBACK, dump_seq(50))
            append(Kind.SKIP, dump({"seq": 45}))
            learner.follow()
            log.empty_wal()
            teach(10, 4)
            append(Kind.CONFIGURE, dump({"rule": "ftrl"}))
            learner.follow()
            teach(15, 4)
            learner.follow(checkpoint=False)
            if moved:
                log.empty_wal()
            # Two workers, one of which has not written for long.
            for slot, seq in enumerate((60, len(drafts))):
                marks = AckMarks(data.mark_file(slot), {stream.number})
                for at in (seq - 5, seq):
                    marks.write_mark(stream.number, read_position(log, stream, at))
                marks.close()
            events = log.read_events(stream.number, 0, 9999)
            states = {seq: state(ARTIFACT, events, seq) for seq in (*list_seqs(folder.snapshots), len(events), BACK_TO)}
    served = {seq: hash_tensors(fold.state.served_parameters().tensors()) for seq, fold in states.items()}
    return Before(root, drafts, events, weights_of(states[len(events)]), weights_of(states[BACK_TO]), served)


def judge(before: Before, damaged: Path, again: Path) -> str:
    """What becomes of two equal directories, the first of which is served from, and the second one verified.

    Returns:
        "harmless", or who detected the damage.

    Raises:
        WrongError: Something is wrong that nobody said.
    """
    told = ""
    try:
        serve(before, damaged)
    except SoftstepError as reason:
        told = f"the start ({type(reason).__name__})"
    except WrongError as wrong:
        if "retry" not in str(wrong) or not verify_streams(again):
            raise
        return f"verify alone, while {wrong}"
    except Exception as error:
        raise WrongError(f"the service met {type(error).__name__}") from error
    try:
        said = verify_streams(again)
    except Exception as error:
        raise WrongError(f"verify met {type(error).__name__}") from error
    return told or ("verify" if said else "harmless")


def serve(before: Before, root: Path) -> None:
    """Starts the service, in one process, and holds everything that it gives to what was before."""
    with open_data(settings(root)) as data:
        assert data is not None
        with closing(opened(data)) as log:
            (stream,) = log.list_streams()
            folder = data.stream_folder(stream.model, stream.version)
            newest = read_latest(folder.snapshots)
            if newest is not None and hash_tensors(
                tensor for name, tensor in newest[1].arrays.items() if name in {"weights", "bias"}
            ) != before.served.get(newest[0]):
                raise WrongError("other weights are served")
            learner = Learner(stream, folder, log)
            learner.catch_up()
            if weights_of(learner.follower.fold) != before.state:
                raise WrongError("the fold is another one")
            log.append([Draft(stream.number, Kind.ROLLBACK, b"back", dump_seq(BACK_TO), 7)])
            learner.catch_up()
            if weights_of(learner.follower.fold) != before.back:
                raise WrongError("the fold after a rollback is another one")
            send_again(before, log)


def send_again(before: Before, log: SqliteLog) -> None:
    """A retry of everything gets its seq, and what is new the next one."""
    last = len(before.drafts)
    for seq, draft in enumerate(before.drafts, 1):
        (outcome,) = log.append([draft])
        if not isinstance(outcome, EventLocation):
            raise WrongError("a retry is refused")
        if (outcome.duplicate, outcome.seq) != (True, seq):
            raise WrongError("a retry is taken for a new event")
    (outcome,) = log.append([before.drafts[0]._replace(id=b"nobody's")])
    if not isinstance(outcome, EventLocation) or (outcome.duplicate, outcome.seq) != (False, last + 2):
        raise WrongError("a new event is taken for a retry")


def verify_streams(root: Path) -> bool:
    """Whether `softstep verify --refold` says that something is damaged."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            return bool(verify.run(settings(root), Namespace(json=False, refold=True)))
        except SoftstepError:
            return True


@dataclass(frozen=True)
class Target:
    """What is hit.

    Attributes:
        name: What it is called.
        count: How often it is hit in a whole campaign.
        files: Patterns of its files within a data directory.
        place: Where in one.
    """

    name: str
    count: int
    files: str
    place: Place = anywhere


LOG: Final = "log.sqlite"
STREAM: Final = "streams/m/1"
TARGETS: Final = (
    Target("the log's database", 400, LOG),
    Target("the log's index of ids", 150, LOG),
    Target("the write-ahead log", 250, "log.sqlite-wal"),
    Target("a checkpoint's tensors", 100, f"{STREAM}/checkpoints/*", tensors),
    Target("a checkpoint's header", 100, f"{STREAM}/checkpoints/*", header),
    Target("a snapshot's tensors", 100, f"{STREAM}/snapshots/*", tensors),
    Target("a snapshot's header", 100, f"{STREAM}/snapshots/*", header),
    Target("marks", 100, "marks/*", marked),
    Target("the bound artifact's manifest", 100, f"{STREAM}/artifact/model.json"),
    Target("the bound artifact's tensors", 100, f"{STREAM}/artifact/model.safetensors"),
)


def flips(folder: Path, share: float = 1.0) -> Iterator[Line]:
    """The campaign."""
    seeded = random.Random(5)
    copies = folder / "damaged", folder / "again"
    wholes = {}
    for moved in (False, True):
        root = folder / f"whole {moved}"
        root.mkdir()
        wholes[moved] = before = written(root, moved=moved)
        for copy in copies:
            shutil.copytree(before.root, copy)
        assert judge(before, *copies) == "harmless", "a whole directory is not taken for one"
        for copy in copies:
            shutil.rmtree(copy)
    for target in TARGETS:
        before = wholes[target.files == LOG]
        counts, wrongs = Counter[str](), Counter[str]()
        count = max(4, round(target.count * share))
        for _ in range(count):
            try:
                counts[hit(before, target, seeded, *copies)] += 1
            except WrongError as wrong:
                wrongs[str(wrong)] += 1
        note = ", ".join(f"{number} {kind}" for kind, number in (*wrongs.most_common(), *counts.most_common()))
        yield Line(f"a flipped bit in {target.name}", count, target.count, wrongs.total(), note)


def hit(before: Before, target: Target, seeded: random.Random, *copies: Path) -> str:
    """Flips one bit in copies of a directory and says what became of it."""
    path = seeded.choice(sorted((before.root / "data").glob(target.files)))
    content = bytearray(path.read_bytes())
    if target.name.endswith("index of ids"):
        page = seeded.choice(index_pages(path))
        at = page * 4096 + anywhere(seeded, bytes(content[page * 4096 : (page + 1) * 4096]))
    else:
        at = target.place(seeded, bytes(content))
    content[at] ^= 1 << seeded.randrange(8)
    for copy in copies:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(before.root, copy)
        (copy / path.relative_to(before.root)).write_bytes(content)
    return judge(before, *copies)
