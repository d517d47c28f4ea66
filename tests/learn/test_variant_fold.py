"""Variants that share decoded batches fold to the bits of a fold of their own."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.learn.event_fold import EventFold
from service.learn.replay import EventBatch, ReplayProgress
from service.learn.variant_fold import Variant, VariantFold, VariantFolds
from service.store.artifact.fingerprint import FOLD_VERSION, OLDEST_FOLD_VERSION
from service.store.artifact.hashing import hash_weights
from service.store.log.correction_payload import correct_payload, encode_correction
from service.store.log.events import Event, Kind
from service.store.log.feedback_payload import Targets, encode_rows, parse_layout
from tests.support.data_directories import iris_artifact

EVENTS = 24


def payload_of(seed: int) -> bytes:
    """Return the payload of one to three rows; some have weights or a row that is skipped, some are invalid."""
    random = np.random.default_rng(seed)
    rows = int(random.integers(1, 4))
    X = random.uniform(0.1, 7.0, (rows, 4)).astype(np.float32)
    if seed % 7 == 0:
        X[0, 0] = np.nan
    weights = random.uniform(0.5, 2.0, rows).astype(np.float32) if seed % 5 == 0 else None
    payload = encode_rows(X, random.integers(0, 3, rows), Targets.INDEX, 3, weights)
    return payload[:-1] if seed % 11 == 0 else payload


@settings(max_examples=15)
@given(st.data())
def test_variants_fold_as_if_alone(data: st.DataObject) -> None:
    """Whatever events are left out, relabeled or invalid, states, counts and losses equal those of single payloads."""
    seeds = data.draw(st.lists(st.integers(0, 99), min_size=EVENTS, max_size=EVENTS))
    seqs = st.integers(1, EVENTS)
    payloads = {seq: payload_of(seed) for seq, seed in enumerate(seeds, 1)}
    without, relabeled = data.draw(st.frozensets(seqs, max_size=6)), data.draw(st.frozensets(seqs, max_size=6))
    corrections = {
        seq: encode_correction(seq, layout, Targets.DISTRIBUTION, np.full((layout.rows, 3), 1 / 3, np.float32))
        for seq in relabeled
        if seeds[seq - 1] % 11
        for layout in [parse_layout(payloads[seq])]
    }
    variants = [Variant(without=without), Variant("ftrl", {"rate": 0.1}, frozenset(), corrections)]
    cuts = sorted({0, EVENTS, *data.draw(st.lists(seqs, max_size=4))})
    unchanged = EventFold(iris_artifact())
    folds = VariantFolds(unchanged, variants)
    parts = [
        folds.fold_batch(
            EventBatch(list(range(lo + 1, hi + 1)), [payloads[seq] for seq in range(lo + 1, hi + 1)], None,
                       ReplayProgress(hi, EVENTS))
        )
        for lo, hi in pairwise(cuts)
    ]  # fmt: skip
    losses = np.concatenate([part.losses for part in parts], axis=1)
    shared = np.concatenate([part.shared for part in parts])
    alone = [EventFold(iris_artifact()), EventFold(iris_artifact()), VariantFold(variants[1], unchanged).fold]
    rows: list[list[float]] = [[], [], []]
    same: list[bool] = []
    for seq, payload in payloads.items():
        kept = [payload, None if seq in without else payload, correct_payload(payload, corrections.get(seq, b""))]
        expected = []
        for fold, one in zip(alone, kept, strict=True):
            found = fold.fold_events([] if one is None else [event_of(seq, one)])
            expected.append(found[0].losses.tolist() if found else None)
        count = len(expected[0] or [])
        for row, values in zip(rows, expected, strict=True):
            row.extend([np.nan] * count if values is None else values)
        same += [seq not in without | corrections.keys()] * count
    np.testing.assert_array_equal(losses, rows)
    assert shared.tolist() == (np.array(same, bool) & ~np.isnan(rows).any(axis=0)).tolist()
    for fold, one in zip([unchanged, *(one.fold for one in folds.folds)], alone, strict=True):
        assert hash_weights(fold.state.candidate_parameters()) == hash_weights(one.state.candidate_parameters())
        assert fold.progressive_validation == one.progressive_validation
    assert folds.folds[0].left_out == len(without)
    assert folds.folds[1].relabeled == len(corrections)


def event_of(seq: int, payload: bytes) -> Event:
    """Return a stored event of feedback."""
    return Event(seq, Kind.FEEDBACK, b"id", 0, payload, b"")


def test_a_variant_starts_paused_and_in_shadow_mode() -> None:
    """It continues with the switches of its start, and with the parameters that are served there."""
    start = EventFold(iris_artifact())
    start.fold_events([event_of(1, payload_of(1))])
    start.state.configure({"shadow": True, "paused": True})
    start.fold_events([event_of(2, payload_of(2))])
    variant = VariantFold(Variant("sgd"), start).fold.state
    assert (variant.paused, variant.shadow) == (True, True)
    assert hash_weights(variant.served_parameters()) == hash_weights(start.state.served_parameters())
    assert hash_weights(variant.candidate_parameters()) == iris_artifact().weights_sha256


def test_constants_keep_the_others_and_the_fold_of_the_stream() -> None:
    """Without a rule the other constants and the version of the fold stay; a rule has this release's defaults."""
    start = VariantFold(Variant("ftrl", {"beta": 2.0}), EventFold(iris_artifact())).fold
    constants = VariantFold(Variant(constants={"rate": 0.1}), start).fold.state.rule_settings["constants"]
    assert (constants["beta"], constants["rate"]) == (2.0, 0.1)
    old = EventFold(iris_artifact(), OLDEST_FOLD_VERSION)
    versions = [
        VariantFold(variant, old).fold.state.scalars()["fold_version"]
        for variant in (Variant(), Variant(constants={"rate": 0.1}), Variant("ftrl"))
    ]
    assert versions == [OLDEST_FOLD_VERSION, OLDEST_FOLD_VERSION, FOLD_VERSION]
