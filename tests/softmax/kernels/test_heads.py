"""Heads: probabilities and labels against references, at extremes, and the arrays that they write."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.errors import UnacceptableError
from service.softmax.classifier import HEADS as CODES
from service.softmax.input_stage import Delta, Stage
from service.softmax.kernels.heads import BLOCK, NOT_FINITE, predict_forward
from service.softmax.kernels.matmul import pack
from service.softmax.kernels.stages import stage_forward
from service.softmax.linear_model import LinearModel
from tests.support.budgets import examples
from tests.support.reference import DTYPES, HEADS, Array, linear, probabilities, stage

CLASSES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 49, 100)
NORMALISED = ("softmax", "sigmoid", "ovr")


def identity(head: str, K: int, dtype: type[np.floating]) -> LinearModel:
    """Return a model whose logits are its features."""
    return LinearModel(head, np.eye(K, dtype=dtype), np.zeros(K, dtype))


def answer(head: str, Z: Array) -> tuple[Array, list[int]]:
    """Return probabilities and labels of logits Z (B, K)."""
    return identity(head, Z.shape[1], Z.dtype.type).classify(Z)


def assert_answer(head: str, P: Array, labels: list[int]) -> None:
    """Assert that probabilities are in [0, 1] and sum to 1, and that labels follow from them."""
    assert ((P >= 0) & (P <= 1)).all(), "also false for NaN"
    if head == "multilabel":
        assert labels == [0] * len(P)
        return
    assert np.abs(P.sum(axis=1, dtype=np.float64) - 1).max() <= (P.shape[1] + 4) * np.finfo(P.dtype).eps
    assert labels == P.argmax(axis=1).tolist()


def assert_close(head: str, P: Array, Z: Array) -> None:
    """Assert that P agrees with its reference; each unit of distance from the largest logit adds one rounding."""
    exact = probabilities(head, Z)
    eps = np.finfo(P.dtype).eps
    distance = np.abs(Z.astype(np.float64)).max(axis=1, keepdims=True) * 2
    smallest = np.exp(-87.0 if P.dtype == np.float32 else -708.0)  # below the domain of exp, which returns 0
    assert (np.abs(P - exact) <= exact * (distance + P.shape[1] + 8) * eps + 2 * smallest).all()


def finite(dtype: type[np.floating]) -> st.SearchStrategy[float]:
    """Return a strategy of finite numbers that favors limits, denormals and ordinary logits."""
    info = np.finfo(dtype)
    ends = [info.max, -info.max, info.smallest_subnormal, -info.smallest_subnormal, info.smallest_normal, 0.0, -0.0]
    return st.one_of(
        st.floats(width=32 if dtype is np.float32 else 64, allow_nan=False, allow_infinity=False),
        st.floats(-100, 100, width=32),
        st.sampled_from([float(end) for end in ends]),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("spread", [0.01, 3, 40, 300])
def test_heads_against_references(head: str, dtype: type[np.floating], spread: float) -> None:
    """Each head's probabilities agree with its reference, for narrow and wide rows, sharp and flat."""
    rng = np.random.default_rng(0)
    for K in (1,) if head == "sigmoid" else CLASSES:
        Z = (rng.standard_normal((BLOCK + 5, K)) * spread).astype(dtype)
        P, labels = answer(head, Z)
        assert P.shape == (len(Z), 2 if head == "sigmoid" else K)
        assert_answer(head, P, labels)
        assert_close(head, P, Z)


@settings(deadline=None, max_examples=examples(400))
@given(st.data(), st.sampled_from(HEADS), st.sampled_from(DTYPES))
def test_any_finite_logits(data: st.DataObject, head: str, dtype: type[np.floating]) -> None:
    """Any finite logits, including the limits of the format, give a prediction without NaN."""
    K = 1 if head == "sigmoid" else data.draw(st.sampled_from(CLASSES))
    Z = data.draw(arrays(dtype, (data.draw(st.integers(1, 5)), K), elements=finite(dtype)))
    assert_answer(head, *answer(head, Z))


@settings(deadline=None, max_examples=examples(400))
@given(st.data(), st.sampled_from(HEADS))
def test_any_finite_float32_model(data: st.DataObject, head: str) -> None:
    """Any finite float32 features, weights and biases give a prediction, also if the logits overflow."""
    N, B = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    K = 1 if head == "sigmoid" else data.draw(st.integers(1, 20))
    X, W, b = (data.draw(arrays(np.float32, shape, elements=finite(np.float32))) for shape in ((B, N), (N, K), K))
    assert_answer(head, *LinearModel(head, W, b).classify(X))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "ovr"])
def test_ties(head: str, dtype: type[np.floating]) -> None:
    """The lowest index of equal probabilities is the label, at any position in the vectors."""
    for K in CLASSES[1:]:
        for first in range(K - 1):
            Z = np.full((1, K), -3, dtype)
            Z[0, [first, K - 1]] = 2
            P, labels = answer(head, Z)
            assert P[0, first] == P[0, K - 1]
            assert labels == [first]


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "ovr"])
def test_ties_after_rounding(head: str) -> None:
    """Logits that differ less than their probabilities can represent are a tie."""
    tiny = np.finfo(np.float32).smallest_subnormal
    Z = np.array([[tiny]] if head == "sigmoid" else [[0, tiny]], np.float32)
    P, labels = answer(head, Z)
    assert P.tolist() == [[0.5, 0.5]]
    assert labels == [0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [3, 16, 17, 100])
def test_softmax_shift(dtype: type[np.floating], K: int) -> None:
    """A shift of all logits that is exact in the format changes no bit of a softmax."""
    Z = np.random.default_rng(1).integers(-50, 50, (20, K)).astype(dtype)
    for shift in (1, -1000, 4096):
        assert np.array_equal(answer("softmax", Z)[0], answer("softmax", Z + dtype(shift))[0])


@settings(deadline=None, max_examples=examples(400))
@given(st.data(), st.sampled_from(DTYPES))
def test_sigmoid_is_a_softmax(data: st.DataObject, dtype: type[np.floating]) -> None:
    """The sigmoid head has the bits and labels of the two-class softmax of (0, z)."""
    z = data.draw(arrays(dtype, (data.draw(st.integers(1, 70)), 1), elements=finite(dtype)))
    P, labels = answer("sigmoid", z)
    pairs, pair_labels = answer("softmax", np.hstack([np.zeros_like(z), z]))
    assert np.array_equal(P, pairs)
    assert labels == pair_labels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [2, 8, 17, 40])
def test_ovr_where_every_sigmoid_underflows(dtype: type[np.floating], K: int) -> None:
    """Rows whose sigmoids are all 0 in the format tend to the softmax of the logits."""
    Z = (-2000 - np.random.default_rng(2).permuted(np.tile(np.arange(K), (9, 1)), axis=1)).astype(dtype)
    assert not answer("multilabel", Z)[0].any()
    P, labels = answer("ovr", Z)
    assert labels == Z.argmax(axis=1).tolist()
    assert np.allclose(P, probabilities("softmax", Z).astype(np.float64), rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("K", CLASSES)
def test_prediction_writes_no_other_memory(head: str, dtype: type[np.floating], K: int) -> None:
    """Exactly (B, n_classes) probabilities and B labels are written, for every remainder."""
    logits, classes = (1, 2) if head == "sigmoid" else (K, K)
    panels = pack(np.ones((2, logits), dtype), np.zeros(logits, dtype))
    for B in (1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3):
        target, labels = np.full(B * classes + 128, -7, dtype), np.full(B + 16, -7)
        P = target[64 : 64 + B * classes].reshape(B, classes)
        assert predict_forward(np.ones((B, 2), dtype), panels, CODES[head], logits, P, labels[8 : 8 + B]) >= 0
        assert (P >= 0).all()
        assert (np.delete(target, np.arange(64, 64 + P.size)) == -7).all()
        assert (np.delete(labels, np.arange(8, 8 + B)) == -7).all()
        assert (labels[8 : 8 + B] >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("K", [1, 16, 17, 50])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_non_finite_logits_are_reported(head: str, dtype: type[np.floating], K: int, bad: float) -> None:
    """The kernel marks exactly the rows with a logit that is not finite, at any position."""
    K = 1 if head == "sigmoid" else K
    panels = pack(np.eye(K, dtype=dtype), np.zeros(K, dtype))
    for k in range(K):
        X = np.zeros((K + 2, K), dtype)
        X[k, k] = bad
        P, labels = np.empty((K + 2, 2 if head == "sigmoid" else K), dtype), np.empty(K + 2, np.int64)
        assert predict_forward(X, panels, CODES[head], K, P, labels) == NOT_FINITE
        assert np.flatnonzero(labels == NOT_FINITE).tolist() == [k]


def overflowing(head: str, K: int, rng: np.random.Generator) -> tuple[LinearModel, Array]:
    """Return a float32 model, and 150 rows of which every third overflows float32."""
    K = 1 if head == "sigmoid" else K
    W, b = rng.standard_normal((4, K)).astype(np.float32), rng.standard_normal(K).astype(np.float32)
    W[0], X = 100 * rng.choice([-1, 1], K), rng.standard_normal((150, 4)).astype(np.float32)
    X[::3, 0] = 3e38 * rng.choice([-1, 1], 50)
    return LinearModel(head, W, b), X


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("K", [3, 16, 40])
def test_overflow_is_computed_in_float64(head: str, K: int) -> None:
    """Rows that overflow float32 get the rounded float64 result; the other rows keep every bit."""
    model, X = overflowing(head, K, np.random.default_rng(3))
    with np.errstate(over="ignore"):
        overflow = ~np.isfinite(linear(X, model.weights, model.bias).astype(np.float32)).all(axis=1)
    assert overflow.tolist() == [i % 3 == 0 for i in range(150)]
    double = LinearModel(head, model.weights.astype(np.float64), model.bias.astype(np.float64))
    P, labels = model.classify(X)
    assert_answer(head, P, labels)
    assert np.array_equal(P[overflow], double.predict(X[overflow].astype(np.float64)).astype(np.float32))
    normal, normal_labels = model.classify(X[~overflow])
    assert np.array_equal(P[~overflow], normal)
    assert [label for label, over in zip(labels, overflow, strict=True) if not over] == normal_labels
    assert np.array_equal(P, model.predict(X))
    assert [model.classify(X[i : i + 1])[1][0] for i in range(150)] == labels


def test_overflow_labels_follow_the_rounded_probabilities() -> None:
    """Classes that tie after rounding to float32 tie in the label, although float64 distinguishes them."""
    W = np.diag([100, 1, 1]).astype(np.float32)
    P, labels = LinearModel("softmax", W, np.array([0, 0, 1e-9], np.float32)).classify(
        np.array([[-3e38, 0, 0]], np.float32)
    )
    assert P.tolist() == [[0, 0.5, 0.5]]
    assert labels == [1]


@pytest.mark.parametrize("head", HEADS)
def test_overflow_of_float64_is_rejected(head: str) -> None:
    """A row that overflows float64 is rejected, alone and in a batch."""
    model = LinearModel(
        head, np.full((1, 1 if head == "sigmoid" else 3), 10.0), np.zeros(1 if head == "sigmoid" else 3)
    )
    for X in ([[1e308]], [[-1e308]], [[1.0], [1e308]]):
        with pytest.raises(UnacceptableError, match="overflow"):
            model.predict(np.array(X))
        with pytest.raises(UnacceptableError, match="overflow"):
            model.classify(np.array(X))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clip", [None, 2.5])
def test_stage_against_its_reference(dtype: type[np.floating], clip: float | None) -> None:
    """The stage is clip((x - mean) / scale) up to rounding, and writes no other memory."""
    rng = np.random.default_rng(4)
    mean, scale = rng.standard_normal(7) * 10, np.exp(rng.standard_normal(7))
    X = (rng.standard_normal((33, 7)) * scale * 2 + mean).astype(dtype)
    target = np.full((35, 7), np.nan, dtype)
    limit = np.inf if clip is None else clip
    stage_forward(X, mean.astype(dtype), (1 / scale).astype(dtype), limit, target[1:-1], 0)
    assert np.isnan(target[[0, -1]]).all()
    bound = 4 * np.finfo(dtype).eps * (np.abs(stage(X, mean, scale)) + (np.abs(X) + np.abs(mean)) / scale)
    assert (np.abs(target[1:-1] - stage(X, mean, scale, clip)) <= bound).all()
    assert np.abs(target[1:-1]).max() <= limit
    if clip is not None:
        assert {-limit, limit} <= set(target[1:-1].ravel().tolist())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_feature_without_a_scale_is_staged_to_zero(dtype: type[np.floating]) -> None:
    """With 1 / scale = 0 the staged feature is 0, also for a difference that overflows."""
    out, most = np.full((2, 3), np.nan, dtype), np.finfo(dtype).max
    X, mean = np.array([[most, 1, 2], [-most, 1, 2]], dtype), np.array([-most, 1, 1], dtype)
    assert stage_forward(X, mean, np.array([0, 0, 1], dtype), 9.0, out, 0)
    assert out.tolist() == [[0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("staged", [False, True])
def test_prediction_with_a_delta(head: str, dtype: type[np.floating], *, staged: bool) -> None:
    """A model with a delta has the bits of one model on both staged rows concatenated."""
    rng = np.random.default_rng(6)
    K = 1 if head == "sigmoid" else 20
    W, D, b = (rng.standard_normal(shape).astype(dtype) for shape in ((6, K), (6, K), K))
    own = Stage(rng.integers(-3, 4, 6).astype(np.float64), np.exp2(rng.integers(-2, 3, 6)), 4.0) if staged else None
    learned = Stage(rng.integers(-3, 4, 6).astype(np.float64), np.exp2(rng.integers(-2, 3, 6)), 1.25)
    X = rng.integers(-8, 9, (70, 6)).astype(dtype)
    shown = X if own is None else stage(X, own.mean, own.scale, own.clip)
    both = np.hstack([shown, stage(X, learned.mean, learned.scale, learned.clip)]).astype(dtype)
    model, plain = LinearModel(head, W, b, own, Delta(D, learned)), LinearModel(head, np.vstack([W, D]), b)
    assert np.array_equal(model.predict(X), plain.predict(both))
    assert model.classify(X)[1] == plain.classify(both)[1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("clip", [None, 1.5])
def test_prediction_with_a_stage(head: str, dtype: type[np.floating], clip: float | None) -> None:
    """A model with a stage has the bits of the same model on staged rows."""
    rng = np.random.default_rng(5)
    K = 1 if head == "sigmoid" else 5
    W, b = rng.standard_normal((6, K)).astype(dtype), rng.standard_normal(K).astype(dtype)
    # Powers of two and small integers, so that the reference's division equals the kernel's multiplication.
    mean, scale = rng.integers(-3, 4, 6).astype(np.float64), np.exp2(rng.integers(-2, 3, 6))
    X = rng.integers(-8, 9, (70, 6)).astype(dtype)
    staged = stage(X, mean, scale, clip).astype(dtype)
    P, labels = LinearModel(head, W, b, Stage(mean, scale, clip)).classify(X)
    plain, plain_labels = LinearModel(head, W, b).classify(staged)
    assert np.array_equal(P, plain)
    assert labels == plain_labels


@pytest.mark.parametrize("head", HEADS)
def test_stage_of_extreme_values(head: str) -> None:
    """Features at their mean stage to 0 and the largest float32 to the clip, for extreme scales."""
    K = 1 if head == "sigmoid" else 2
    statistics = Stage(np.array([0.0, 3e38, -3e38, 1.0]), np.array([1e-38, 3e38, 1e-38, 1.0]), 4.0)
    model = LinearModel(head, np.ones((4, K), np.float32), np.zeros(K, np.float32), statistics)
    centre = np.array([[0, 3e38, -3e38, 1]], np.float32)
    far = np.array([[3e38, 3e38, 3e38, 3e38]], np.float32)
    assert np.array_equal(model.logits(centre), np.zeros((1, K), np.float32))
    assert np.array_equal(model.logits(far), np.full((1, K), 12, np.float32))
    assert_answer(head, *model.classify(far))
