"""The changes of the answer to a row equal those of each state, made by itself."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import settings

from service.learn.answer_history import Answer, AnswerHistory, labels_aspect, threshold_aspect
from service.learn.replay import StreamReplay
from service.store.artifact.artifact import Artifact
from service.store.log.events import Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage
from tests.support.history_machine import UpgradeMachine, fold_by_definition

ROW = np.array([[0.3, -0.2, 0.1]], np.float32)


def changes_by_definition(
    artifact: Artifact, log: FeedbackLog, stream: Stream, aspect: Callable[[Answer], object]
) -> list[Answer]:
    """Make every state by itself, and return the answers in which an aspect differs from the one before."""
    found: list[Answer] = []
    compared: object = None
    for n in range(read_lineage(log, stream.number).newest_base_seq, log.stream_state(stream.number).seq + 1):
        fold = fold_by_definition(artifact, log, stream.number, n)
        P, labels = fold.state.served_parameters().build_model().classify(ROW)
        chosen = tuple(labels)
        if artifact.manifest.head == "multilabel":
            chosen = tuple(k for k, p in enumerate(P[0].tolist()) if p >= 0.5)
        answer = Answer(n, tuple(fold.classes), P[0], chosen)
        if not found or aspect(answer) != compared:
            found.append(answer)
            compared = aspect(answer)
    return found


def history_of(artifact: Artifact, log: FeedbackLog, stream: Stream, aspect: Any = labels_aspect) -> AnswerHistory:
    """Return the history of the answer to the row, once all states were made."""
    history = AnswerHistory(StreamReplay(stream, artifact, log), ROW.copy(), aspect)
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
