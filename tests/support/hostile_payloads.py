"""Payloads of format 2 that were altered at random, and how they decode."""

import random
from collections import Counter
from hashlib import sha256

import numpy as np

from service.errors import PayloadError
from service.softmax.sparse_rows import SparseRows
from service.store.log.feedback_blocks import decode_events
from service.store.log.feedback_payload import Targets, encode_sparse_rows

RUNS = 3000
# Bytes that make numbers large, negative or off by one.
BYTES = (0, 1, 2, 3, 4, 5, 0x7F, 0x80, 0xFF)


def make_payload(rng: random.Random) -> bytes:
    """Return a payload of one or two rows with up to four entries each, of one of three layouts."""
    B, kind = rng.choice([(1, Targets.INDEX), (2, Targets.INDEX), (2, Targets.SET)])
    each = [sorted(rng.sample(range(5), rng.randrange(5))) for _ in range(B)]
    columns = np.array([column for row in each for column in row], np.int32)
    rows = SparseRows(np.cumsum([len(row) for row in each]), columns, np.ones(len(columns), np.float32))
    targets = np.ones(B, np.int64) if kind == Targets.INDEX else np.ones((B, 3), np.int64)
    return encode_sparse_rows(rows, 5, targets, kind, 3)


def alter(rng: random.Random, payload: bytes) -> bytes:
    """Return a payload with another byte, or with some bytes more or fewer."""
    at = rng.randrange(len(payload))
    if rng.random() < 0.2:
        return payload[:at] if rng.random() < 0.5 else payload[:at] + payload
    return payload[:at] + bytes([rng.choice(BYTES)]) + payload[at + 1 :]


def hash_outcomes() -> str:
    """Return a hash over what many runs of payloads decode to, most of them with an altered one."""
    rng, digest, outcomes = random.Random(1), sha256(), Counter[str]()
    for _ in range(RUNS):
        payloads = [make_payload(rng) for _ in range(rng.randrange(1, 5))]
        changed = rng.randrange(len(payloads) + 1)
        payloads[changed : changed + 1] = [alter(rng, one) for one in payloads[changed : changed + 1]]
        try:
            blocks = decode_events(payloads)
        except PayloadError as error:
            outcomes[str(error)] += 1
            digest.update(str(error).encode())
            continue
        outcomes["decoded"] += 1
        for block in blocks:
            digest.update(repr(block.layout).encode())
            for array in (*block.rows, block.targets):
                digest.update(array.tobytes())
    assert len(outcomes) > 4, "too few kinds of faults"
    assert min(outcomes.values()) > RUNS // 200, "a kind of fault is rare"
    return digest.hexdigest()
