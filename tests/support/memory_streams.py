"""Streams of random rows in a log that is kept in memory."""

from typing import Any

import numpy as np

from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.log.events import Draft, Kind, Stream
from service.store.log.feedback_payload import Targets, encode_rows
from tests.support.memory_log import MemoryLog
from tests.support.model_artifacts import make_artifact

N = 3


def feedback(stream: Stream, number: int, rows: int = 1) -> Draft:
    """Return an event of random rows whose id is its number."""
    random = np.random.default_rng(number)
    X = random.standard_normal((rows, N)).astype(np.float32)
    payload = encode_rows(X, random.integers(0, 3, rows), Targets.INDEX, 3)
    return Draft(stream.number, Kind.FEEDBACK, b"%d" % number, payload, 0)


def memory_stream(events: int, **fields: Any) -> tuple[Artifact, MemoryLog, Stream]:
    """Return a small artifact and a log with one stream of it, of single rows."""
    artifact = make_artifact("softmax", N, ["a", "b", "c"], **fields)
    log = MemoryLog()
    stream = log.open_stream("m", 1, compute_genesis(artifact), 3)
    log.append([feedback(stream, number) for number in range(events)])
    return artifact, log, stream


def damage_event(log: MemoryLog, stream: Stream, seq: int, payload: bytes) -> None:
    """Replace a payload without the log's checks, as a damaged disk would."""
    # No public call of a log damages it.
    event, seal = log._stored[stream.number][seq - 1]
    log._stored[stream.number][seq - 1] = (event._replace(payload=payload), seal)


def lose_events(log: MemoryLog, stream: Stream, after: int) -> None:
    """Remove the last events without the log's checks, as a damaged disk would."""
    # No public call of a log removes single events.
    del log._stored[stream.number][after:]
