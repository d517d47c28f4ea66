"""Linear models: validation of arrays, immutability and threads."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.errors import UnacceptableError
from service.softmax.input_stage import Delta, Stage
from service.softmax.linear_model import LinearModel
from tests.support.reference import DTYPES, HEADS, Array, targets

N, K = 4, 3
METHODS: dict[str, Callable[[LinearModel, Array], object]] = {
    "predict": lambda model, X: model.predict(X),
    "classify": lambda model, X: model.classify(X),
    "logits": lambda model, X: model.logits(X),
    "log_probabilities": lambda model, X: model.log_probabilities(X),
    "losses": lambda model, X: model.losses(X, np.zeros((len(X), model.n_logits))),
    "gradients": lambda model, X: model.gradients(X, np.zeros((len(X), model.n_logits))),
}


def matrix(dtype: type = np.float32, rows: int = N, columns: int = K) -> Array:
    """Return finite numbers."""
    return np.random.default_rng(0).standard_normal((rows, columns)).astype(dtype)


def build_linear_model(head: str = "softmax", dtype: type = np.float32, stage: Stage | None = None) -> LinearModel:
    """Return a model of N features."""
    columns = 1 if head == "sigmoid" else K
    return LinearModel(head, matrix(dtype, N, columns), matrix(dtype, 1, columns)[0], stage)


def statistics(clip: float | None = 3.0) -> Stage:
    """Return a stage of N features."""
    return Stage(np.arange(N, dtype=np.float64), np.ones(N), clip)


def with_last(array: Array, value: float) -> Array:
    """Return a copy of an array with its last number replaced."""
    copy = array.copy()
    copy.flat[-1] = value
    return copy


WEIGHTS, BIAS = matrix(), matrix()[0]
BAD_MODELS: dict[str, tuple[object, ...]] = {
    "unknown head": ("linear", WEIGHTS, BIAS),
    "half precision": ("softmax", WEIGHTS.astype(np.float16), BIAS.astype(np.float16)),
    "integers": ("softmax", WEIGHTS.astype(np.int32), BIAS.astype(np.int32)),
    "longdouble": ("softmax", WEIGHTS.astype(np.longdouble), BIAS.astype(np.longdouble)),
    "another byte order": ("softmax", WEIGHTS.astype(">f4"), BIAS.astype(">f4")),
    "two dtypes": ("softmax", WEIGHTS, BIAS.astype(np.float64)),
    "a vector of weights": ("softmax", WEIGHTS[0], BIAS),
    "three axes": ("softmax", WEIGHTS[None], BIAS),
    "no features": ("softmax", WEIGHTS[:0], BIAS),
    "no classes": ("softmax", WEIGHTS[:, :0], BIAS[:0]),
    "short bias": ("softmax", WEIGHTS, BIAS[:-1]),
    "bias as a row": ("softmax", WEIGHTS, BIAS[None]),
    "sigmoid with two logits": ("sigmoid", WEIGHTS[:, :2], BIAS[:2]),
    "NaN weight": ("softmax", with_last(WEIGHTS, np.nan), BIAS),
    "infinite weight": ("softmax", with_last(WEIGHTS, -np.inf), BIAS),
    "NaN bias": ("softmax", WEIGHTS, with_last(BIAS, np.nan)),
    "infinite bias": ("softmax", WEIGHTS, with_last(BIAS, np.inf)),
    "short mean": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N - 1), np.ones(N))),
    "short stage": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N - 1), np.ones(N - 1))),
    "long scale": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), np.ones(N + 1))),
    "mean as a matrix": ("softmax", WEIGHTS, BIAS, Stage(np.zeros((1, N)), np.ones((1, N)))),
    "NaN mean": ("softmax", WEIGHTS, BIAS, Stage(with_last(np.zeros(N), np.nan), np.ones(N))),
    "infinite scale": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), with_last(np.ones(N), np.inf))),
    "NaN scale": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), with_last(np.ones(N), np.nan))),
    "zero scale": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), with_last(np.ones(N), 0))),
    "negative scale": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), with_last(np.ones(N), -1))),
    "mean beyond float32": ("softmax", WEIGHTS, BIAS, Stage(with_last(np.zeros(N), 1e39), np.ones(N))),
    "1 / scale beyond float32": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), with_last(np.ones(N), 1e-39))),
    "1 / scale below float32": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), with_last(np.ones(N), 1e50))),
    "1 / scale beyond float64": (
        "softmax",
        WEIGHTS.astype(np.float64),
        BIAS.astype(np.float64),
        Stage(np.zeros(N), with_last(np.ones(N), 1e-309)),
    ),
    "zero clip": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), np.ones(N), 0.0)),
    "negative clip": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), np.ones(N), -1.0)),
    "NaN clip": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), np.ones(N), np.nan)),
    "infinite clip": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), np.ones(N), np.inf)),
    "short delta": ("softmax", WEIGHTS, BIAS, None, Delta(WEIGHTS[:-1], Stage(np.zeros(N), np.ones(N), 1.0))),
    "delta in float64": (
        "softmax",
        WEIGHTS,
        BIAS,
        None,
        Delta(matrix(np.float64), Stage(np.zeros(N), np.ones(N), 1.0)),
    ),
    "NaN delta": (
        "softmax",
        WEIGHTS,
        BIAS,
        None,
        Delta(with_last(WEIGHTS, np.nan), Stage(np.zeros(N), np.ones(N), 1.0)),
    ),
    "delta without a clip": ("softmax", WEIGHTS, BIAS, None, Delta(WEIGHTS, Stage(np.zeros(N), np.ones(N)))),
    "delta with a bad stage": ("softmax", WEIGHTS, BIAS, None, Delta(WEIGHTS, Stage(np.zeros(N), np.zeros(N), 1.0))),
    "clip below float32": ("softmax", WEIGHTS, BIAS, Stage(np.zeros(N), np.ones(N), 1e-50)),
}


@pytest.mark.parametrize("arguments", BAD_MODELS.values(), ids=BAD_MODELS.keys())
def test_invalid_parameters_are_rejected(arguments: tuple[object, ...]) -> None:
    """Inconsistent parameters, and numbers that are not finite, are rejected."""
    with pytest.raises(ValueError, match=r"head|weights|stage|delta"):
        LinearModel(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes(head: str, dtype: type) -> None:
    """A model has the right sizes; a sigmoid head has one logit and two classes."""
    model = build_linear_model(head, dtype)
    assert (model.n_features, model.n_logits, model.n_classes) == {"sigmoid": (N, 1, 2)}.get(head, (N, K, K))
    assert (model.head, model.dtype) == (head, np.dtype(dtype))


@pytest.mark.parametrize("stage", [None, statistics()], ids=["raw", "staged"])
@pytest.mark.parametrize("method", METHODS)
def test_wrong_width(method: str, stage: Stage | None) -> None:
    """Rows of another width, and arrays that are no matrix, are rejected before a kernel runs."""
    model = build_linear_model(stage=stage)
    for shape in ((2, N - 1), (2, N + 1), (1, 10_000), (2, 0), (N,), (1, 1, N)):
        with pytest.raises(ValueError, match=r"X (has|must)|unpack"):
            METHODS[method](model, np.zeros(shape, np.float32))


def layouts() -> dict[str, Array]:
    """Return arrays (2, N) with the right numbers in a layout that kernels cannot read."""
    X = matrix(np.float32, 2, N)
    fixed = X.copy()
    fixed.flags.writeable = False
    odd = np.zeros(X.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(X.shape)
    odd[:] = X
    return {
        "float64": X.astype(np.float64),
        "float16": X.astype(np.float16),
        "integers": X.astype(np.int32),
        "bytes of the same size": X.view(np.uint32),
        "objects": X.astype(object),
        "another byte order": X.astype(">f4"),
        "column order": np.asfortranarray(X),
        "every second column": np.repeat(X, 2, axis=1)[:, ::2],
        "backwards": X[::-1],
        "read-only": fixed,
        "misaligned": odd,
    }


@pytest.mark.parametrize("stage", [None, statistics()], ids=["raw", "staged"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", layouts())
def test_wrong_dtype_or_layout(layout: str, method: str, stage: Stage | None) -> None:
    """A wrong dtype, byte order or layout is rejected, also after valid arrays of the same shape."""
    model, X = build_linear_model(stage=stage), layouts()[layout]
    METHODS[method](model, matrix(np.float32, 2, N))
    with pytest.raises(TypeError, match="X must be"):
        METHODS[method](model, X)


@pytest.mark.parametrize("stage", [None, statistics(), statistics(None)], ids=["raw", "clipped", "staged"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite(bad: float, dtype: type, head: str, stage: Stage | None) -> None:
    """NaN and infinity are rejected, also for a weight of 0 or where a clip would hide them."""
    weights, bias = matrix(dtype, N, 1 if head == "sigmoid" else K), matrix(dtype, 1, 1 if head == "sigmoid" else K)[0]
    weights[1] = 0
    model = LinearModel(head, weights, bias, stage)
    for j in range(N):
        for rows in (1, 3):
            X = matrix(dtype, rows, N)
            X[-1, j] = bad
            for method in ("predict", "classify", "log_probabilities", "losses", "gradients"):
                with pytest.raises(UnacceptableError):
                    METHODS[method](model, X)


def test_wrong_targets() -> None:
    """Targets of another shape or dtype are rejected; read-only and strided ones are accepted."""
    model, X, Y = build_linear_model(), matrix(np.float32, 2, N), np.eye(2, K)
    for bad in (Y[:1], Y[:, :2], np.eye(3, K), Y.astype(np.float32), Y.astype(">f8"), Y[0], Y.astype(int)):
        for call in (model.losses, model.gradients):
            with pytest.raises(ValueError, match="Y must be"):
                call(X, bad)
    fixed = np.eye(2, K)
    fixed.flags.writeable = False
    for same in (fixed, np.asfortranarray(Y), np.repeat(Y, 2, axis=1)[:, ::2]):
        assert np.array_equal(model.losses(X, same), model.losses(X, Y))


def test_no_rows() -> None:
    """A batch without rows has a prediction without rows."""
    P, labels = build_linear_model().classify(np.empty((0, N), np.float32))
    assert P.shape == (0, K)
    assert labels == []


def test_weights_of_any_layout() -> None:
    """Weights in column order, read-only or strided give the same model."""
    fixed = WEIGHTS.copy()
    fixed.flags.writeable = False
    X = matrix(np.float32, 5, N)
    expected = LinearModel("softmax", WEIGHTS, BIAS).predict(X)
    for same in (fixed, np.asfortranarray(WEIGHTS), np.repeat(WEIGHTS, 2, axis=0)[::2]):
        assert np.array_equal(LinearModel("softmax", same, BIAS).predict(X), expected)


@pytest.mark.parametrize("head", HEADS)
def test_later_changes_of_the_arrays_have_no_effect(head: str) -> None:
    """Writing into the arrays of the constructor changes no prediction, also not in float64."""
    columns = 1 if head == "sigmoid" else K
    W, b, stage = matrix(np.float32, N, columns), matrix(np.float32, 1, columns)[0], statistics()
    # Two features of the last row overflow float32 and cancel in float64, so that its answer depends on the others.
    stage = Stage(stage.mean, stage.scale, None)
    X, Y = matrix(np.float32, 6, N), targets(head, "soft", 5, columns, np.random.default_rng(0))
    W[0], W[1], X[-1, :2] = 10, -10, 3e38
    model, untouched = LinearModel(head, W, b, stage), LinearModel(head, W.copy(), b.copy(), statistics(None))
    for array in (W, b, stage.mean, stage.scale):
        array[:] = 77
    assert np.array_equal(model.predict(X), untouched.predict(X))
    for got, expected in zip(model.gradients(X[:5].copy(), Y), untouched.gradients(X[:5].copy(), Y), strict=True):
        assert np.array_equal(got, expected)


def test_predictions_are_new_arrays() -> None:
    """Writing into a prediction changes neither the model, nor X, nor another prediction."""
    model, X = build_linear_model(), matrix(np.float32, 5, N)
    first, second, original = model.predict(X), model.predict(X), X.copy()
    assert np.array_equal(first, second)
    second[:] = 0
    model.logits(X)[:] = 0
    assert np.array_equal(X, original)
    assert first.all()
    assert np.array_equal(model.predict(X), first)


@pytest.mark.parametrize("head", HEADS)
def test_threads_share_a_model(head: str) -> None:
    """Four threads that share one model get the bits of one thread."""
    model = build_linear_model(head, stage=statistics())
    sizes = (1, 1, 64, 64, 300, 300, 301, 301)
    batches = [np.random.default_rng(i).standard_normal((B, N)).astype(np.float32) for i, B in enumerate(sizes)]
    batches[3][1, 0] = 3e38
    expected = [build_linear_model(head, stage=statistics()).classify(X) for X in batches]
    barrier = threading.Barrier(4)

    def work(thread: int) -> bool:
        barrier.wait()
        same = True
        for i in range(200):
            P, labels = model.classify(batches[(i + thread) % 8])
            wanted_P, wanted_labels = expected[(i + thread) % 8]
            same &= np.array_equal(P, wanted_P) and labels == wanted_labels
        return same

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
