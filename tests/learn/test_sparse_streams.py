"""Streams of sparse rows: their states follow from the log as those of any model, to the bit."""

import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from service.errors import ArtifactError
from service.learn.event_fold import EventFold
from service.learn.replay import StreamReplay
from service.learn.state import LearnerState
from service.softmax.sparse_rows import SparseRows
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.model_factory import build_model, build_row_model, initial_parameters, restore_parameters
from service.store.log.admin_payloads import dump
from service.store.log.events import Kind
from service.store.log.feedback_payload import Targets, encode_rows, encode_sparse_rows
from tests.support.budgets import examples
from tests.support.history_machine import FollowMachine, UpgradeMachine, contents_hash, fold_by_definition
from tests.support.learner_states import has_same_bits
from tests.support.reference import HEADS
from tests.support.sparse_streams import N, few_columns, random_targets, sparse_artifact, sparse_payload


def slice_of(rows: SparseRows, start: int, stop: int) -> SparseRows:
    """Return some rows, as arrays of their own."""
    return rows.take(np.arange(start, stop))


class SparseMachine(FollowMachine):
    """The machine of the follower for a sparse model, which also replays states."""

    @initialize(support=st.booleans(), calibrated=st.booleans())
    def begin(self, *, support: bool, calibrated: bool) -> None:  # type: ignore[override]
        """Make a model with or without the support of its columns, and a calibration that learns."""
        more = {"calibration": {"kind": "temperature", "learn": True, "temperature": 0.2}} if calibrated else {}
        self.artifact = sparse_artifact(support=support, **more)
        self.folder = tempfile.TemporaryDirectory()
        self.log = self.make_log()
        self.stream = self.log.open_stream("m", 1, compute_genesis(self.artifact), 3)
        self.random = np.random.default_rng(1)
        self.ids = []
        self.start()

    def row_payload(self, rows: int, classes: int, *, soft: bool) -> bytes:
        """Return a payload of random sparse rows with random labels."""
        kind, targets = self.random_targets(rows, classes, soft=soft)
        return encode_sparse_rows(few_columns(self.random, rows), N, targets, kind, classes)

    @rule(firmness=st.sampled_from([0.0, 0.05, 2.0]), shadow=st.booleans())
    def change_constants(self, firmness: float, *, shadow: bool) -> None:
        """Change the first sums of columns that no row had, or the parameters that are served."""
        constants = {"firmness": firmness, "rate": 0.5}
        assert self.append_event(Kind.CONFIGURE, dump({"rule": "adagrad", "constants": constants, "shadow": shadow}))

    @rule(data=st.data())
    def replay_a_state(self, data: st.DataObject) -> None:
        """Replay a state from the log, if no event of it was forgotten."""
        n = data.draw(st.integers(0, self.last))
        replay = StreamReplay(self.stream, self.artifact, self.log)
        if not replay.lineage.forgotten and (n == 0 or n >= replay.lineage.newest_base_seq):
            list(replay.fold_to(n))
            expected = fold_by_definition(self.artifact, self.log, self.stream.number, n)
            assert contents_hash(replay.fold) == contents_hash(expected)


class SparseUpgradeMachine(UpgradeMachine, SparseMachine):
    """The same with releases that each fold in another way."""


TestSparseUpgrades = SparseUpgradeMachine.TestCase
TestSparseUpgrades.settings = settings(max_examples=examples(25), stateful_step_count=20, deadline=None)
TestSparseStreams = SparseMachine.TestCase
TestSparseStreams.settings = settings(max_examples=examples(25), stateful_step_count=20, deadline=None)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("support", [False, True])
@settings(max_examples=examples(10), deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=6), rule_=st.sampled_from(["sgd", "adagrad", "ftrl"]))
def test_any_split_gives_the_same_state(head: str, support: bool, cuts: list[int], rule_: str) -> None:  # noqa: FBT001
    """Also across checkpoints, copies, and added classes before and after."""
    source, rng = sparse_artifact(head=head, support=support, learning={"rule": rule_}), np.random.default_rng(3)
    rows, Y = few_columns(rng, 60), random_targets(rng, source, 60)
    whole, parts = LearnerState(source), LearnerState(source)
    whole.fold_rows(rows, Y=Y)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 60], strict=True):
        parts.fold_rows(slice_of(rows, start, stop), Y=Y[start:stop])
        parts = LearnerState.from_tensors(source, parts.tensors(), parts.scalars()).copy()
    assert has_same_bits(whole, parts)
    assert whole.rule_settings["form"] == "plain"


def test_a_state_is_served_and_scored_alike() -> None:
    """A row's loss is that of the answer before its step, and the snapshot's arrays give the same answers."""
    source, rng = sparse_artifact(), np.random.default_rng(4)
    rows, labels = few_columns(rng, 40), rng.integers(0, 3, 40)
    state = LearnerState(source)
    for i in range(40):
        row, served = slice_of(rows, i, i + 1), state.served_parameters()
        P = build_row_model(served).predict(row)
        again = build_row_model(restore_parameters(source.manifest, served.arrays(), served.clips()))
        assert again.predict(row).tobytes() == P.tobytes() == state.classify(row)[0].tobytes()
        assert np.isclose(state.fold_rows(row, labels[i : i + 1])[0], -np.log(P[0, labels[i]]), rtol=1e-5)


def test_defaults_and_refusals() -> None:
    """A sparse model learns by adagrad at its own rate; rules and forms that need dense rows are refused."""
    state = LearnerState(sparse_artifact())
    constants = {"rate": 0.5, "epsilon": 1e-8, "step_clip": 8.0, "forget": 1e-6, "firmness": 0.05}
    assert state.rule_settings == {"rule": "adagrad", "form": "plain", "constants": constants}
    state.configure({"rule": "ftrl"})
    assert state.rule_settings["constants"]["rate"] == 0.3  # whatever the number of columns
    for change in (
        {"rule": "newton"}, {"rule": "mixture"}, {"rule": "adagrad", "constants": {"clip": 2.0}},
        {"rule": "adagrad", "constants": {"rate": -1.0}},
    ):  # fmt: skip
        with pytest.raises(ArtifactError):
            state.configure(change)
    assert state.rule_settings["rule"] == "ftrl"
    for name in ("newton", "mixture"):
        with pytest.raises(ArtifactError):
            LearnerState(sparse_artifact(learning={"rule": name}))


def test_support_holds_trained_weights() -> None:
    """The more a column was present in the training rows, the less a row moves its weights."""
    rng = np.random.default_rng(5)
    source = sparse_artifact(support=True)
    support = source.tensors["support"]
    often, rarely = int(support.argmax()), int(support.argmin())
    row = SparseRows(np.array([2]), np.array(sorted((often, rarely)), np.int32), np.ones(2, np.float32))
    for firmness in (0.0, 0.05):
        learning = {"rule": "adagrad", "constants": {"firmness": firmness}}
        state = LearnerState(sparse_artifact(support=True, learning=learning))
        state.fold_rows(row, rng.integers(0, 3, 1))
        learned = initial_parameters(state.export_artifact(source.manifest.classes, {})).tensors()[0]
        moved = np.abs(learned - source.weights).sum(axis=1)
        assert (moved[often] < 0.8 * moved[rarely]) == (firmness > 0)


@pytest.mark.parametrize("head", HEADS)
def test_an_export_answers_with_the_same_bits_and_goes_on(head: str) -> None:
    """It keeps the fields and the support, and also has added classes."""
    source, rng = sparse_artifact(head=head, support=True), np.random.default_rng(6)
    rows, Y = few_columns(rng, 40), random_targets(rng, source, 40)
    state = LearnerState(source)
    state.fold_rows(rows, Y=Y)
    classes = list(source.manifest.classes)
    if head != "sigmoid":
        state.add_classes(2)
        classes += ["d", "e"]
    exported = state.export_artifact(classes, {})
    assert (exported.manifest.fields, exported.has_sparse_rows) == (source.manifest.fields, True)
    assert exported.tensors["support"].tobytes() == source.tensors["support"].tobytes()
    assert exported.manifest.training is not None
    assert exported.manifest.training.rows == 50 + 40
    served = build_row_model(state.served_parameters()).predict(rows)
    assert build_model(exported).predict(rows).tobytes() == served.tobytes()
    again = LearnerState(exported)
    assert again.rule_settings == state.rule_settings


def test_rows_of_another_form_are_unfit() -> None:
    """Events of dense rows, of other columns or of another dtype are counted, and change nothing else."""
    fold, rng = EventFold(sparse_artifact()), np.random.default_rng(7)
    rows, label = few_columns(rng, 1), np.array([1])
    fold.fold_payloads([encode_sparse_rows(rows, N, label, Targets.INDEX, 3)])
    before = fold.state.copy()
    dense = encode_rows(rows.to_matrix(N), label, Targets.INDEX, 3)
    wide = encode_sparse_rows(rows, N + 1, label, Targets.INDEX, 3)
    double = encode_sparse_rows(rows.astype(np.float64), N, label, Targets.INDEX, 3)
    fold.fold_payloads([dense, wide, double, b"none"])
    assert (fold.events, fold.unfit) == (1, 4)
    assert has_same_bits(fold.state, before)


def test_a_checkpoint_holds_the_columns_that_were_touched() -> None:
    """Not the others: it is small, however many columns there are."""
    fold, rng = EventFold(sparse_artifact()), np.random.default_rng(8)
    fold.fold_payloads([sparse_payload(rng)])
    _, arrays = fold.checkpoint_contents()
    touched = arrays["columns"]
    assert 0 < len(touched) <= 6  # entries of a row
    assert arrays["weights"].shape == arrays["squares"].shape == (len(touched) + 1, 3)
    assert sum(array.nbytes for name, array in arrays.items() if name != "window" and "recent" not in name) < 1000
