"""Seeded scenarios: the events that one or two workers post, and the worker that posts them.

A scenario holds batches of one to four events with labeled rows, and retries of some. Among them are an added class, a
rollback, a forget, a pause, and a move of the write-ahead log into the database. The real writer posts it, with its
thread and worker log (service/serve/log); the real learner process learns from it (service/learn/learner_process.py).
"""

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np

from service.errors import LogError, SoftstepError
from service.process.shared_memory import SharedMemory
from service.process.wakeup import Wakeup
from service.serve.log.submissions import LearningVersion
from service.serve.log.worker_log import WorkerLog
from service.serve.log.writer import Writer
from service.serve.log.writer_thread import WriterCallbacks
from service.serve.metrics.counters import FEEDBACK_COUNTERS
from service.serve.wire.feedback_body import PostedEvent
from service.settings import Settings
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, dump_seq
from service.store.log.events import Draft, EventLocation, Kind
from service.store.log.feedback_payload import Targets, encode_rows
from tests.support.data_directories import LIMIT, iris_artifact
from tests.support.writer_rig import submit_events
from tests.torture.fault_injection import Emit

ARTIFACT = iris_artifact()
GENESIS = compute_genesis(ARTIFACT)
N, K = 4, 3
BATCHES = 7
TRIES = 3


class Request(NamedTuple):
    """One event to post; `body` is its JSON over HTTP."""

    kind: Kind
    post: PostedEvent
    body: dict[str, Any]
    actor: str = ""


# A batch of feedback, one admin event, or None: a move of the write-ahead log into the database.
Step = tuple[Request, ...] | None


def make_scenario(seed: int, client: str = "a", batches: int = BATCHES, *, has_key: bool = True) -> list[Step]:
    """Return the steps of one client, in order; a client with a key is the actor of its events."""
    rng, classes = random.Random(f"{seed} {client}"), K
    generator = np.random.default_rng([seed, *client.encode()])
    steps: list[Step] = []
    posted: list[Request] = []
    admin = [Kind.FORGET, Kind.CLASSES, Kind.ROLLBACK, Kind.CONFIGURE, None]
    rng.shuffle(admin)
    for number in range(batches):
        batch = [feedback_request(f"{client}{number}-{n}", generator, classes) for n in range(rng.randint(1, 4))]
        posted += batch
        if rng.random() < 0.5:
            batch.append(rng.choice(posted))
        steps.append(tuple(batch))
        if number and admin:
            kind = admin.pop()
            steps.append(None if kind is None else (admin_request(kind, f"{client}{number}", posted, rng),))
            classes = {Kind.CLASSES: classes + 1, Kind.ROLLBACK: K}.get(cast("Kind", kind), classes)
    actor = f"key:{client}" if has_key else ""
    return [step and tuple(request._replace(actor=actor) for request in step) for step in steps]


def feedback_request(name: str, generator: np.random.Generator, classes: int) -> Request:
    """Return an event with one or two labeled rows."""
    rows = int(generator.integers(1, 3))
    X = generator.uniform(0.1, 7.0, (rows, N)).astype(np.float32)
    labels = generator.integers(0, classes, rows)
    body = {"id": name, "instances": X.astype(float).tolist(), "labels": labels.tolist()}
    post = PostedEvent(name.encode(), encode_rows(X, labels, Targets.INDEX, classes), rows)
    return Request(Kind.FEEDBACK, post, body)


def admin_request(kind: Kind, name: str, posted: list[Request], rng: random.Random) -> Request:
    """Return an admin event; a forget chooses among the posted events."""
    id_ = f"{name}-{kind.name.lower()}"
    ids = [request.post.id for request in rng.sample(posted, min(2, len(posted)))]
    seq = rng.randint(0, 4)
    payload, body = {
        Kind.FORGET: (dump_forget_ids(ids), {"ids": [one.decode() for one in ids]}),
        Kind.CLASSES: (dump_classes([f"class {name}"]), {"add": [f"class {name}"]}),
        Kind.ROLLBACK: (dump_seq(seq), {"seq": seq}),
        Kind.CONFIGURE: (dump({"paused": True}), {"paused": True}),
    }[kind]
    return Request(kind, PostedEvent(id_.encode(), payload, 0), {"id": id_, **body})


def drafts_of(stream: int, steps: list[Step]) -> list[Draft]:
    """Return the drafts of all steps, in order."""
    return [
        Draft(stream, one.kind, one.post.id, one.post.payload, 1, actor=one.actor.encode())
        for step in steps
        if step
        for one in step
    ]


def scenario_settings(folder: Path, **more: Any) -> Settings:
    """Return the settings of a service whose data directory is in a folder."""
    return Settings(data=folder / "data", disk_reserve_bytes=0, log_format="text", **more)


# The worker


def post_scenario(  # noqa: PLR0917  # all but the last are bound before the fork
    settings: Settings, shared: SharedMemory, slot: int, steps: list[Step], wakeup: Wakeup, emit: Emit
) -> None:
    """Post all steps as a worker does, and emit "ack <id> <seq>" for each acknowledged event."""
    served = {("iris", 1): SimpleNamespace(artifact=ARTIFACT)}
    registry = cast("Any", SimpleNamespace(now=SimpleNamespace(served=served)))
    worker_log = WorkerLog(registry, DataDirectory(settings.data), shared, slot, settings)
    callbacks = WriterCallbacks(
        worker_log.open_log, worker_log.bind_artifact, worker_log.mark_committed, wakeup, lambda _: None
    )
    asyncio.run(_post_steps(callbacks, steps, emit))


async def _post_steps(callbacks: WriterCallbacks, steps: list[Step], emit: Emit) -> None:
    writer = Writer(callbacks, 1000, 1 << 20)
    writer.start()
    source = LearningVersion("iris", 1, (GENESIS,), K, 0, counters(FEEDBACK_COUNTERS))
    for step in steps:
        for _ in range(TRIES):
            try:
                source = await _post_step(writer, source, step, emit)
            except LogError as error:
                emit(f"error {type(error).__name__}")
            except SoftstepError:  # the service rejects this step; a retry cannot succeed
                break
            else:
                break
    await writer.close()


async def _post_step(writer: Writer, source: LearningVersion, step: Step, emit: Emit) -> LearningVersion:
    """Post one step; return the source with the class epoch that the stream has afterwards."""
    if step is None:
        await writer.call_with_log(lambda log: cast("Any", log).empty_wal())
        return source
    if step[0].kind == Kind.FEEDBACK:
        outcomes = await submit_events(writer, source, [one.post for one in step], step[0].actor)
    else:
        outcomes = [await writer.submit_event(source, step[0].post, step[0].kind, actor=step[0].actor)]
    for one, outcome in zip(step, outcomes, strict=True):
        if isinstance(outcome, EventLocation):
            emit(f"ack {one.post.id.decode()} {outcome.seq}")
    state = await writer.call_with_log(lambda log: log.stream_state(log.list_streams()[0].number))
    return source._replace(class_epoch=state.class_epoch)


def counters(count: int) -> memoryview:
    """Return `count` counters of 8 bytes, all zero."""
    return memoryview(bytearray(8 * count)).cast("q")


def bind_scenario_artifact(settings: Settings) -> DataDirectory:
    """Bind the artifact to the stream, and return the data directory."""
    data = DataDirectory(settings.data)
    data.stream_folder("iris", 1).path.mkdir(parents=True, exist_ok=True)
    bind_artifact(data.stream_folder("iris", 1), ARTIFACT, LIMIT)
    return data
