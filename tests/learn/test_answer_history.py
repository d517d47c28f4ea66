"""The changes of the answer to a row equal those of each state, made by itself."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from service.learn.answer_history import Answer, AnswerHistory, labels_aspect, threshold_aspect
from service.learn.replay import StreamReplay
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.log.admin_payloads import dump, dump_classes
from service.store.log.events import Draft, Kind, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.log.feedback_payload import Targets, encode_rows
from tests.support.history_machine import UpgradeMachine, fold_by_definition
from tests.support.memory_log import MemoryLog
from tests.support.model_artifacts import make_artifact

ROW = np.array([[0.3, -0.2, 0.1]], np.float32)
# With it the label changes often.
FAST = {"rule": "sgd", "constants": {"rate": 2.0}}


def changes_by_definition(
    artifact: Artifact, log: FeedbackLog, stream: Stream, aspect: Callable[[Answer], object]
) -> list[Answer]:
    """Make every state by itself, and return the answers in which an aspect differs from the one before."""
    found: list[Answer] = []
    compared: object = None
    row = ROW.astype(artifact.manifest.dtype)
    for n in range(read_lineage(log, stream.number).newest_base_seq, log.stream_state(stream.number).seq + 1):
        fold = fold_by_definition(artifact, log, stream.number, n)
        P, labels = fold.state.served_parameters().build_model().classify(row)
        chosen = tuple(labels)
        if artifact.manifest.head == "multilabel":
            thresholds = [*(artifact.manifest.thresholds or ()), *[0.5] * 9]
            chosen = tuple(k for k, p in enumerate(P[0].tolist()) if p >= thresholds[k])
        answer = Answer(n, tuple(fold.classes), P[0], chosen)
        if not found or aspect(answer) != compared:
            found.append(answer)
            compared = aspect(answer)
    return found


def history_of(artifact: Artifact, log: FeedbackLog, stream: Stream, aspect: Any = labels_aspect) -> AnswerHistory:
    """Return the history of the answer to the row, once all states were made."""
    row = ROW.astype(artifact.manifest.dtype)
    history = AnswerHistory(StreamReplay(stream, artifact, log), row, aspect)
    steps = list(history.find_changes())
    assert all(step.total == steps[-1].events for step in steps)
    return history


def reaches(answer: Answer, *, name: str, threshold: float) -> bool:
    """Return whether a class has at least a probability."""
    return dict(zip(answer.classes, answer.probabilities, strict=True)).get(name, -1) >= threshold


def texts(answers: list[Answer]) -> list[str]:
    """Return answers in a form that shows every bit."""
    return [repr((one.seq, one.classes, one.probabilities.tobytes(), one.labels)) for one in answers]


class AnswerMachine(UpgradeMachine):
    """The machine of the follower; at the end of each history it goes through the answers of all states."""

    def teardown(self) -> None:
        """Compare the changes of the label, and of whether a class reaches a threshold, with their definition."""
        try:
            if hasattr(self, "stream"):
                self.find_changes()
        finally:
            super().teardown()

    def find_changes(self) -> None:
        """Compare the changes of several aspects."""
        stream = self.artifact, self.log, self.stream
        expected = changes_by_definition(*stream, lambda answer: answer.labels)
        assert texts(history_of(*stream).answers) == texts(expected)
        last = fold_by_definition(self.artifact, self.log, self.stream.number, self.last)
        for name, threshold in (("a", 0.3), *((name, 0.0) for name in last.classes[3:])):
            expected = changes_by_definition(*stream, partial(reaches, name=name, threshold=threshold))
            assert texts(history_of(*stream, threshold_aspect(name, threshold)).answers) == texts(expected)


TestAnswers = AnswerMachine.TestCase
TestAnswers.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("head", "fields"),
    [
        ("sigmoid", {"calibration": {"kind": "platt", "a": 0.5, "b": -1.0, "learn": True}}),
        ("ovr", {}),
        ("multilabel", {"thresholds": [0.3, 0.5, 0.6]}),
    ],
)
def test_other_heads_have_the_labels_of_their_answers(head: str, fields: dict[str, Any], dtype: str) -> None:
    """A multilabel head has labels by its thresholds; in shadow mode no label changes."""
    names = ["a", "b"] if head == "sigmoid" else ["a", "b", "c"]
    artifact, log = make_artifact(head, 3, names, dtype, learning=FAST, **fields), MemoryLog()
    stream = log.open_stream("m", 1, compute_genesis(artifact), len(names))
    random = np.random.default_rng(3)
    admin = {
        20: (Kind.CONFIGURE, dump({"shadow": True})),
        30: (Kind.CLASSES, dump_classes(["d"])),
        50: (Kind.CONFIGURE, dump({"shadow": False})),
    }
    for number in range(80):
        classes = log.stream_state(stream.number).n_classes
        shape = (2, classes) if head == "multilabel" else (2,)
        targets = random.integers(0, 2 if head == "multilabel" else classes, shape)
        X = (ROW + random.normal(0, 0.3, (2, 3))).astype(dtype)
        rows = encode_rows(X, targets, Targets.SET if head == "multilabel" else Targets.INDEX, classes)
        kind, payload = admin.get(number, (Kind.FEEDBACK, rows))
        log.append([Draft(stream.number, kind, b"%d" % number, payload, 0)])
    expected = changes_by_definition(artifact, log, stream, lambda answer: answer.labels)
    assert texts(history_of(artifact, log, stream).answers) == texts(expected)
    assert len(expected) > 2
