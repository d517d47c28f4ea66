"""Counts of scored rows: losses, hits and norms of steps."""

import numpy as np
import pytest

from service.softmax.linear_learner import LinearLearner
from service.softmax.parameters import LinearParameters
from service.softmax.progress import RECENT, summarize_progress
from service.softmax.rule import Rule
from tests.support.folds import RULES, Case, answer
from tests.support.reference import HEADS


def test_progress_counts_rows_losses_and_hits() -> None:
    """The progressive loss and accuracy are those of the predictions before each step, also over the recent window."""
    case = Case("softmax", RULES["newton"], "running", B=RECENT + 300)
    labels, learner, hits = case.Y.argmax(axis=1), case.learner(), []
    losses = np.empty(len(labels))
    for i in range(len(labels)):
        hits.append(answer(learner).classify(case.X[i : i + 1].copy())[1][0] == labels[i])
        losses[i] = learner.fold(case.X[i : i + 1].copy(), labels[i : i + 1])[0]
    progress = learner.progress
    assert (progress["rows"], progress["steps"], progress["recent_rows"]) == (RECENT + 300, RECENT + 300, RECENT)
    assert progress["loss"] == pytest.approx(losses.mean(), rel=1e-12)
    assert progress["accuracy"] == pytest.approx(np.mean(hits), rel=1e-12)
    assert progress["recent_loss"] == pytest.approx(losses[-RECENT:].mean(), rel=1e-12)
    assert progress["recent_accuracy"] == pytest.approx(np.mean(hits[-RECENT:]), rel=1e-12)
    assert progress["skipped_rows"] == 0


def test_progress_without_rows() -> None:
    """Before the first row every count and mean is 0."""
    assert set(summarize_progress(np.zeros(8), np.zeros((2, RECENT))).values()) == {0}


@pytest.mark.parametrize("head", HEADS)
def test_hits(head: str) -> None:
    """A row is a hit if its label is the largest class of the target, or for multilabel if every class is right."""
    K = 1 if head == "sigmoid" else 3
    bias = np.array([2.0] if K == 1 else [2.0, -2.0, 1.0])
    learner = LinearLearner(LinearParameters(head, np.zeros((1, K)), bias), "plain", Rule("sgd", 0.1), np.full(K, 0.8))  # type: ignore[arg-type]
    hit = np.array([[0.6]] if K == 1 else [[0.9, 0.0, 0.1]])
    learner.fold(np.zeros((1, 1)), Y=hit, learning=False)
    miss = np.array([[0.4]] if K == 1 else [[0.1, 0.0, 0.9]])
    learner.fold(np.zeros((1, 1)), Y=miss, learning=False)
    assert learner.progress["accuracy"] == 0.5


def test_norms_of_steps() -> None:
    """The last and the mean norm are those of the changes of the masters."""
    for name, rule in RULES.items():
        case, moved = Case("softmax", rule, "running", K=9), []
        learner = case.learner()
        for i in range(40):
            before = learner.tensors()["masters"]
            learner.fold(case.X[i : i + 1].copy(), Y=case.Y[i : i + 1])
            moved.append(np.linalg.norm(learner.tensors()["masters"] - before))
        assert learner.progress["step_norm"] == pytest.approx(moved[-1], rel=1e-9), name
        assert learner.progress["mean_step_norm"] == pytest.approx(np.mean(moved), rel=1e-9), name
