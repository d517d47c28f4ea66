"""The objective of linear models: value and gradient by other means, sparse and dense, one thread and several."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.softmax.block_sums import SEGMENTS_MAX, count_segments, sum_labels
from service.softmax.classifier import Head
from service.softmax.linear_objective import LinearObjective
from service.softmax.row_blocks import BLOCK_ROWS, MemoryBlocks
from service.softmax.sparse_rows import SparseRows
from tests.support.budgets import examples
from tests.support.training_blocks import Problem, draw_problem, plain_objective

HEADS = st.sampled_from(["softmax", "sigmoid", "multilabel"])


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Return rows of each head: whole groups and parts of them, whole vectors of columns and parts of them."""
    head: Head = draw(HEADS)
    n_classes = 2 if head == "sigmoid" else draw(st.integers(2 if head == "softmax" else 1, 9))
    n_rows, n_columns = draw(st.integers(1, 140)), draw(st.integers(1, 45))
    return draw_problem(
        draw(st.integers(0, 999)), head, n_classes, n_rows, n_columns, kept=draw(st.sampled_from([0.1, 1.0]))
    )


def parameters_of(objective: LinearObjective, problem: Problem, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return random weights, biases, and both as parameters."""
    rng = np.random.default_rng(seed)
    K = 1 if problem.head == "sigmoid" else problem.n_classes
    weights, bias = rng.normal(size=(problem.X.shape[1], K)), rng.normal(size=K)
    return weights, bias, objective.pack((), weights, bias)


@settings(max_examples=examples(120), deadline=None)
@given(problems(), st.sampled_from([0.1, 1.0, np.inf]))
def test_value_is_that_of_plain_numpy(problem: Problem, C: float) -> None:
    """Of dense and of sparse rows."""
    for blocks in (problem.dense(), problem.sparse()):
        objective = LinearObjective(blocks, problem.head, problem.n_classes, C)
        weights, bias, parameters = parameters_of(objective, problem)
        value, _ = objective.evaluate(parameters)
        assert value * objective.weight == pytest.approx(plain_objective(problem, weights, bias, C), rel=1e-12)
        assert objective.mean_loss(parameters) * objective.weight == pytest.approx(
            plain_objective(problem, weights, bias, np.inf), rel=1e-12
        )
        _, kept_weights, kept_bias = objective.unpack(parameters)
        assert np.array_equal(kept_weights, weights)
        assert np.array_equal(kept_bias, bias)


@settings(max_examples=examples(120), deadline=None)
@given(problems())
def test_sparse_rows_have_the_gradient_of_dense_ones(problem: Problem) -> None:
    """To rounding: the sums of a row have another order."""
    gradients = []
    for blocks in (problem.dense(), problem.sparse()):
        objective = LinearObjective(blocks, problem.head, problem.n_classes, 0.7)
        _, gradient = objective.evaluate(parameters_of(objective, problem)[-1])
        gradients.append(np.concatenate([part.ravel() for part in objective.unpack(gradient)[1:]]))
    assert np.allclose(*gradients, rtol=1e-10, atol=1e-12)


@settings(max_examples=examples(40), deadline=None)
@given(problems(), st.booleans())
def test_gradient_is_that_of_finite_differences(problem: Problem, sparse: bool) -> None:  # noqa: FBT001
    """In a random direction, by central differences."""
    blocks = problem.sparse() if sparse else problem.dense()
    objective = LinearObjective(blocks, problem.head, problem.n_classes, 0.7)
    parameters = parameters_of(objective, problem)[-1]
    direction, h = parameters_of(objective, problem, seed=1)[-1], 1e-5
    _, gradient = objective.evaluate(parameters)
    difference = objective.evaluate(parameters + h * direction)[0] - objective.evaluate(parameters - h * direction)[0]
    assert float(gradient @ direction) == pytest.approx(difference / (2 * h), rel=1e-6, abs=1e-8)


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(1, 140), st.integers(1, 20), st.integers(0, 99))
def test_diagonal_is_that_of_the_hessian_where_all_classes_are_equally_probable(
    n_rows: int, n_columns: int, seed: int
) -> None:
    """Of dense and of sparse rows, by second differences at weights of 0; unused parameters have 1."""
    problem = draw_problem(seed, "sigmoid", 2, 2 * n_rows, n_columns, kept=0.5)
    labels, weights = np.arange(2 * n_rows) % 2, np.repeat(problem.weights[:n_rows], 2)
    for blocks in (problem.dense(), problem.sparse()):
        objective = LinearObjective(blocks, "sigmoid", 2, 0.7)
        curvature = objective.diagonal()
        assert len(curvature) == objective.n_parameters
        assert curvature.min() > 0
    even = problem._replace(labels=labels, weights=weights)
    objective, h = LinearObjective(even.sparse(), "sigmoid", 2, 0.7), 1e-3
    zeros, steps = np.zeros(objective.n_parameters), h * np.eye(objective.n_parameters)
    slopes = [objective.evaluate(zeros + step)[1] - objective.evaluate(zeros - step)[1] for step in steps]
    assert np.allclose(objective.diagonal(), [slope[j] / (2 * h) for j, slope in enumerate(slopes)], rtol=1e-4)
    dense = LinearObjective(even.dense(), "sigmoid", 2, 0.7).diagonal()
    assert np.allclose(dense[:n_columns], objective.diagonal()[:n_columns], rtol=1e-12)
    assert np.array_equal(dense[n_columns:-1], np.ones(len(dense) - n_columns - 1))


@settings(max_examples=examples(60), deadline=None)
@given(problems())
def test_weights_are_repeated_rows(problem: Problem) -> None:
    """A row of weight 3 counts as three rows, and a row of weight 0 as none."""
    counts = np.random.default_rng(0).integers(0, 4, len(problem.X))
    counts[0] += 1
    weighted = MemoryBlocks(problem.X, problem.labels, counts.astype(np.float64))
    repeated = MemoryBlocks(np.repeat(problem.X, counts, axis=0), np.repeat(problem.labels, counts, axis=0))
    values, gradients = [], []
    for blocks in (weighted, repeated):
        objective = LinearObjective(blocks, problem.head, problem.n_classes, 0.7)
        value, gradient = objective.evaluate(parameters_of(objective, problem)[-1])
        values.append(value)
        gradients.append(gradient)
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert np.allclose(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("head", ["softmax", "sigmoid", "multilabel"])
def test_threads_change_no_bit(head: Head, form: str) -> None:
    """More blocks than segments, with one thread and with five."""
    problem = draw_problem(3, head, 2 if head == "sigmoid" else 3, (SEGMENTS_MAX + 2) * BLOCK_ROWS + 77, 9, kept=0.5)
    blocks = problem.dense() if form == "dense" else problem.sparse()
    with ThreadPoolExecutor(5) as pool:
        several = LinearObjective(blocks, head, problem.n_classes, 1.0, pool)
        parameters = parameters_of(several, problem)[-1]
        value, gradient = several.evaluate(parameters)
    alone = LinearObjective(blocks, head, problem.n_classes, 1.0)
    assert alone.evaluate(parameters)[0] == value
    assert np.array_equal(alone.evaluate(parameters)[1], gradient)


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "multilabel"])
def test_huge_logits_have_finite_losses(head: Head) -> None:
    """The exponentials do not overflow: the loss of a wrong row is the distance of its logits."""
    X = np.array([[1.0], [-1.0]], np.float32)
    labels = np.array([[1], [1]]) if head == "multilabel" else np.array([1, 1])
    n_classes = 1 if head == "multilabel" else 2
    objective = LinearObjective(MemoryBlocks(X, labels), head, n_classes, np.inf)
    weights = np.array([[0.0, 1e6]]) if head == "softmax" else np.array([[1e6]])
    value, gradient = objective.evaluate(objective.pack((), weights, np.zeros(weights.shape[1])))
    assert value == 5e5
    _, slopes, _ = objective.unpack(gradient)
    assert np.array_equal(slopes, [[-0.5, 0.5]] if head == "softmax" else [[0.5]])


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_mapped_rows_are_read_where_they_are(form: str) -> None:
    """Arrays of a file that is mapped for reading have the same sums."""
    problem = draw_problem(4, "softmax", 3, 100, 11, kept=0.5)
    blocks = problem.dense() if form == "dense" else problem.sparse()
    objective = LinearObjective(blocks, "softmax", 3, 1.0)
    parameters = parameters_of(objective, problem)[-1]
    value, gradient = objective.evaluate(parameters)
    rows, labels, weights = blocks.read_block(0)
    for array in (*(rows if isinstance(rows, SparseRows) else (rows,)), labels, weights):
        array.setflags(write=False)
    assert objective.evaluate(parameters)[0] == value
    assert np.array_equal(objective.evaluate(parameters)[1], gradient)
    assert objective.diagonal().min() > 0


def test_segments_depend_on_the_shape_alone() -> None:
    """At most SEGMENTS_MAX; two if the sums are large."""
    assert [count_segments(n, 100) for n in (1, 5, 16, 1000)] == [1, 5, 16, 16]
    assert count_segments(1000, 2**30) == 2


def test_labels_and_weights_are_checked() -> None:
    """Before kernels read them."""
    X = np.zeros((3, 2), np.float32)
    for labels, weights, head, message in (
        ([0, 1, 2], None, "sigmoid", "a label is out of range"),
        ([0, -1, 1], None, "softmax", "a label is out of range"),
        ([[0, 1], [1, 1], [0, 2]], None, "multilabel", "a label is out of range"),
        ([0, 1, 1], None, "multilabel", "labels must be"),
        ([[0, 1]] * 3, None, "softmax", "labels must be"),
        ([0, 1, 1], [1.0, -1.0, 1.0], "softmax", "weights must be"),
        ([0, 1, 1], [1.0, np.nan, 1.0], "softmax", "weights must be"),
        ([0, 1, 1], [0.0, 0.0, 0.0], "softmax", "the sum of all weights"),
    ):
        blocks = MemoryBlocks(X, np.array(labels), None if weights is None else np.array(weights))
        with pytest.raises(ValueError, match=message):
            sum_labels(blocks, head, 2)  # type: ignore[arg-type]


def test_problems_that_no_model_solves_are_refused() -> None:
    """By head, number of classes and C; a column out of range when it is read."""
    blocks = draw_problem(0, "softmax", 3, 5, 2).dense()
    for head, n_classes, C in (("ovr", 3, 1.0), ("sigmoid", 3, 1.0), ("softmax", 1, 1.0), ("softmax", 3, 0.0)):
        with pytest.raises(ValueError, match=r"must be|at least"):
            LinearObjective(blocks, head, n_classes, C)  # type: ignore[arg-type]
    sparse = draw_problem(0, "softmax", 3, 5, 4).sparse()
    sparse.n_columns = 3
    objective = LinearObjective(sparse, "softmax", 3, 1.0)
    with pytest.raises(ValueError, match="out of range"):
        objective.evaluate(np.zeros(objective.n_parameters))
    with pytest.raises(ValueError, match="out of range"):
        objective.diagonal()
