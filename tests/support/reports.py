"""Reports of streams that a test makes itself, with plausible numbers."""

from typing import Any

import numpy as np

from service.store.states.report import (
    BUCKETS_MAX,
    COARSE_BUCKETS_MAX,
    RECENT_MAX,
    SURPRISING_MAX,
    Report,
)


def width_of(events: int, buckets_max: int) -> int:
    """Return the smallest power of two that divides so many events into so many buckets at most."""
    width = 1
    while -(-events // width) > buckets_max:
        width *= 2
    return width


def make_report(events: int, classes: tuple[str, ...] = ("a", "b", "c"), features: int = 2, **changed: Any) -> Report:
    """Return the report of a stream of so many events, of one row each, whose numbers depend on the arguments alone.

    Args:
        events: The number of events.
        classes: The names of the classes.
        features: The number of features.
        changed: Attributes of the report to replace.
    """
    start = changed.pop("start", 0)
    rng, K = np.random.default_rng(events), len(classes)
    seqs = np.arange(1, events + 1)
    loss, frozen_loss = rng.exponential(1, (2, events))
    labels, answers, frozen = rng.integers(0, K, (3, events))
    hit, frozen_hit = answers == labels, frozen == labels
    confidence = rng.uniform(0, 1, events)
    shift = rng.normal(0, 1, (events, features)).clip(-8, 8)
    table = np.stack([np.ones(events), loss, loss, hit, np.ones(events), frozen_loss, frozen_hit, hit & frozen_hit], 1)
    sums: dict[str, Any] = {}
    for name, most in (("bucket", BUCKETS_MAX), ("coarse_bucket", COARSE_BUCKETS_MAX)):
        width = sums[name] = width_of(events, most)
        at, buckets = (seqs - 1) // width, -(-events // width)
        columns = np.zeros((buckets, 8))
        np.add.at(columns, at, table)
        columns[:, 2] = 0
        np.maximum.at(columns[:, 2], at, loss)
        if name == "bucket":
            counts = np.zeros((2, buckets, K), "<u4")
            np.add.at(counts[0], (at, labels), 1)
            np.add.at(counts[1], (at[hit], labels[hit]), 1)
            sums |= {"history": columns, "labels": counts[0], "found": counts[1]}
            continue
        confusion, calibration = np.zeros((buckets, K, K), "<u4"), np.zeros((buckets, 10, 3))
        drift = np.zeros((buckets, features))
        np.add.at(confusion, (at, labels, answers), 1)
        np.add.at(calibration, (at, (confidence * 10).astype(int)), np.stack([np.ones(events), confidence, hit], 1))
        np.add.at(drift, at, shift)
        sums |= {"quality": columns, "confusion": confusion, "calibration": calibration, "drift": drift}
    rows = np.stack([start + seqs, labels, answers], 1).astype("<i8")
    recent = np.stack([loss, hit, confidence, hit, frozen_loss, frozen_hit], 1)
    order = np.argsort(-loss, kind="stable")[:SURPRISING_MAX]
    values: dict[str, Any] = {
        "seq": start + events, "hash": "ab" * 32, "epoch": 0, "start": start, "classes": classes, "keyframes": (),
        "history_sha256": "cd" * 32, "recent": recent[-RECENT_MAX:], "recent_rows": rows[-RECENT_MAX:],
        "surprising": loss[order, None], "surprising_rows": rows[order], **sums,
    }  # fmt: skip
    return Report(**{**values, **changed})
