"""What happens to a model in one case: events that one or two workers post, and what a learner makes of them.

A story is made from a seed: batches of labelled rows of one to four events, retries of some, and among them a class
that is added, a rollback, a forget, a pause, and the write-ahead log moved to its place. It is told by the real writer
with its thread and ledger (service/serve), and learned by the real loop (service/learn/learner_process.py).
"""

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np

from service.errors import LogError, SoftstepError
from service.process.shared_memory import STATUSES, SharedMemory
from service.process.wakeup import Wakeup
from service.serve.log.worker_log import WorkerLog
from service.serve.log.writer import Writer
from service.serve.log.writer_thread import Source, WriterCallbacks
from service.serve.metrics.counters import FEEDBACK_COUNTERS
from service.serve.wire.feedback_body import PostedEvent
from service.settings import Settings
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.data_directory import DataDirectory
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, dump_seq
from service.store.log.events import Draft, EventLocation, Kind
from service.store.log.feedback_payload import Targets, encode_rows
from tests.support.data_directories import LIMIT, iris
from tests.torture.fault_injection import Tell

ARTIFACT = iris()
GENESIS = compute_genesis(ARTIFACT)
N, K = 4, 3
TURNS = 7
TRIES = 3


class Asked(NamedTuple):
    """One event that somebody asks for; `body` is what it is over HTTP."""

    kind: Kind
    post: PostedEvent
    body: dict[str, Any]


# A batch of feedback, one admin event, or None: the write-ahead log is moved to its place.
Step = tuple[Asked, ...] | None


def story(seed: int, who: str = "a", turns: int = TURNS) -> list[Step]:
    """What somebody asks for, one after the other."""
    chance, classes = random.Random(f"{seed} {who}"), K
    numbers = np.random.default_rng([seed, *who.encode()])
    steps: list[Step] = []
    asked: list[Asked] = []
    admin = [Kind.FORGET, Kind.CLASSES, Kind.ROLLBACK, Kind.CONFIGURE, None]
    chance.shuffle(admin)
    for turn in range(turns):
        batch = [feedback(f"{who}{turn}-{n}", numbers, classes) for n in range(chance.randint(1, 4))]
        asked += batch
        if chance.random() < 0.5:
            batch.append(chance.choice(asked))
        steps.append(tuple(batch))
        if turn and admin:
            kind = admin.pop()
            steps.append(None if kind is None else (turned(kind, f"{who}{turn}", asked, chance),))
            classes = {Kind.CLASSES: classes + 1, Kind.ROLLBACK: K}.get(cast("Kind", kind), classes)
    return steps


def feedback(name: str, numbers: np.random.Generator, classes: int) -> Asked:
    """One or two labelled rows."""
    rows = int(numbers.integers(1, 3))
    X = numbers.uniform(0.1, 7.0, (rows, N)).astype(np.float32)
    labels = numbers.integers(0, classes, rows)
    body = {"id": name, "instances": X.astype(float).tolist(), "labels": labels.tolist()}
    return Asked(Kind.FEEDBACK, PostedEvent(name.encode(), encode_rows(X, labels, Targets.INDEX, classes), rows), body)


def turned(kind: Kind, who: str, asked: list[Asked], chance: random.Random) -> Asked:
    """An admin event."""
    name = f"{who}-{kind.name.lower()}"
    ids = [one.post.id for one in chance.sample(asked, min(2, len(asked)))]
    seq = chance.randint(0, 4)
    payload, body = {
        Kind.FORGET: (dump_forget_ids(ids), {"ids": [id_.decode() for id_ in ids]}),
        Kind.CLASSES: (dump_classes([f"class {who}"]), {"add": [f"class {who}"]}),
        Kind.ROLLBACK: (dump_seq(seq), {"seq": seq}),
        Kind.CONFIGURE: (dump({"paused": True}), {"paused": True}),
    }[kind]
    return Asked(kind, PostedEvent(name.encode(), payload, 0), {"id": name, **body})


def drafts(stream: int, steps: list[Step]) -> list[Draft]:
    """Everything that was asked for, in order, as it goes into a log."""
    return [Draft(stream, one.kind, one.post.id, one.post.payload, 1) for step in steps if step for one in step]


def settings_of(folder: Path, **more: Any) -> Settings:
    """The settings of a service whose data is in a folder."""
    return Settings(data=folder / "data", disk_reserve_bytes=0, log_json=False, **more)


# A worker


def tell_story(  # noqa: PLR0917  # all but the last are bound before the fork
    settings: Settings, board: SharedMemory, slot: int, steps: list[Step], bell: Wakeup, tell: Tell
) -> None:
    """Post everything as a worker does, and tell what is acknowledged: "ack <id> <seq>"."""
    served = {("iris", 1): SimpleNamespace(artifact=ARTIFACT)}
    live = cast("Any", SimpleNamespace(now=SimpleNamespace(served=served)))
    ledger = WorkerLog(live, DataDirectory(settings.data), board, slot, settings)
    ways = WriterCallbacks(ledger.open_log, ledger.bind, ledger.mark, bell)
    asyncio.run(_tell_story(ways, steps, tell))


async def _tell_story(ways: WriterCallbacks, steps: list[Step], tell: Tell) -> None:
    writer = Writer(ways, cells(STATUSES), 1000, 1 << 20)
    writer.start()
    source = Source("iris", 1, (GENESIS,), K, 0, cells(FEEDBACK_COUNTERS))
    for step in steps:
        for _ in range(TRIES):
            try:
                source = await _take(writer, source, step, tell)
            except LogError as error:
                tell(f"error {type(error).__name__}")
            except SoftstepError:  # refused alone
                break
            else:
                break
    await writer.close()


async def _take(writer: Writer, source: Source, step: Step, tell: Tell) -> Source:
    """Post one step; returns the source with the class epoch that the stream has then."""
    if step is None:
        await writer.call(lambda log: cast("Any", log).empty_wal())
        return source
    if step[0].kind == Kind.FEEDBACK:
        outcomes = await writer.submit_all(source, [one.post for one in step])
    else:
        outcomes = [await writer.submit(source, step[0].post, step[0].kind)]
    for one, outcome in zip(step, outcomes, strict=True):
        if isinstance(outcome, EventLocation):
            tell(f"ack {one.post.id.decode()} {outcome.seq}")
    state = await writer.call(lambda log: log.stream_state(log.list_streams()[0].number))
    return source._replace(class_epoch=state.class_epoch)


def cells(count: int) -> memoryview:
    """Counters."""
    return memoryview(bytearray(8 * count)).cast("q")


def bound(settings: Settings) -> DataDirectory:
    """The data directory with the artifact bound."""
    data = DataDirectory(settings.data)
    data.stream_folder("iris", 1).path.mkdir(parents=True, exist_ok=True)
    data.stream_folder("iris", 1).bind_artifact(ARTIFACT, LIMIT)
    return data
