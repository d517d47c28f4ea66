"""Newton's matrices: bounds of a step, positive definiteness, and mirrored elements."""

from dataclasses import replace

import numpy as np

from tests.support.folds import RULES, Case, answer, whole_matrices


def test_a_step_of_weight_one_stays_below_the_clip() -> None:
    """With default constants a Newton step changes no logit of its own row by 8, for any row and matrices."""
    rule = replace(RULES["newton"], step_clip=np.inf, start=1e6)
    case = Case("softmax", rule, "plain", B=100)
    learner = case.learner()
    for i in range(100):
        x, before = case.X[i : i + 1] * 1e3, answer(learner).logits(case.X[i : i + 1] * 1e3)
        learner.fold(x, Y=case.Y[i : i + 1])
        assert np.abs(answer(learner).logits(x) - before).max() <= 8 * (1 + 1e-6)


def test_matrices_stay_positive_definite_and_finite() -> None:
    """After many rows of one kind the matrices keep their floor, and no eigenvalue is negative."""
    rule = replace(RULES["newton"], forget=1e-6, surprise=100.0)
    case = Case("softmax", rule, "running", N=9, K=3, B=1)
    learner = case.learner()
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 9))
    learner.fold(X, (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 1))
    values = np.linalg.eigvalsh(whole_matrices(learner.tensors()["curvature"], 10))
    assert 0 < values.min() <= values.max() <= 0.1 * (1 + 1e-9)


def test_mirrored_elements_are_equal() -> None:
    """The elements stored twice in the diagonal blocks stay bit-identical."""
    case = Case("softmax", RULES["newton"], "running", N=20, B=200)
    learner = case.learner()
    learner.fold(case.X, Y=case.Y)
    stored, row = learner.tensors()["curvature"], 0
    blocks = {}
    for i in range(21):
        block = i - i % 8
        blocks[i] = stored[:, row + block : row + block + 8]
        row += block + 8
    for i in range(21):
        for j in range(i - i % 8, i):
            assert np.array_equal(blocks[i][:, j % 8], blocks[j][:, i % 8])
