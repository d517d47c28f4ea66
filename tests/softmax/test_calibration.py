"""Calibration: the identity changes no bit, answers are those of scaled logits, and learning follows its formulas."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.softmax.calibration import IDENTITY, KINDS, CalibratedModel, Calibration
from service.softmax.calibration_learner import CalibrationLearner
from service.softmax.classifier import Classifier, Head
from service.softmax.derivatives import softmax
from service.softmax.input_stage import Stage
from service.softmax.kernels.calibration_kernels import FIRMNESS, KEEP, MOST, PULL, REACH, SCALE_MAX, SHIFT_MAX, STEP
from service.softmax.linear_model import LinearModel
from service.softmax.reliability_diagram import BINS, reliability_diagram
from tests.support.networks import Net
from tests.support.reference import DTYPES, Array, losses, probabilities, targets

quick = settings(deadline=None, max_examples=60)
CALIBRATED: tuple[Head, ...] = ("softmax", "sigmoid")
heads, dtypes = st.sampled_from(CALIBRATED), st.sampled_from(DTYPES)


def identity(head: Head) -> Calibration:
    """What changes nothing."""
    return Calibration(KINDS[head], tuple(IDENTITY[KINDS[head]].values()))


def some(head: Head) -> Calibration:
    """What changes every answer."""
    return Calibration("temperature", (2.7,)) if head == "softmax" else Calibration("platt", (0.6, -0.8))


def model_of(head: Head, dtype: Any, N: int = 6, K: int = 3, *, staged: bool = False) -> LinearModel:
    """A model of random weights."""
    rng, K = np.random.default_rng(N + K), 1 if head == "sigmoid" else K
    stage = Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N)), 2.0) if staged else None
    return LinearModel(head, rng.standard_normal((N, K)).astype(dtype), rng.standard_normal(K).astype(dtype), stage)


def rows(B: int, N: int, dtype: Any) -> Array:
    """Random rows."""
    return (np.random.default_rng(B).standard_normal((B, N)) * 2).astype(dtype)


def everything(model: Classifier, X: Array) -> list[bytes]:
    """The bits of all that a model answers."""
    P, labels = model.classify(X)
    Y = np.full((len(X), model.n_logits), 1 / model.n_logits)
    parts = [P, np.array(labels), model.predict(X), model.logits(X), model.log_probabilities(X), model.losses(X, Y)]
    return [part.tobytes() for part in parts]


@pytest.mark.parametrize("B", [1, 7, 130])
@pytest.mark.parametrize("K", [2, 3, 16, 17, 33])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", CALIBRATED)
def test_the_identity_changes_no_bit(head: Head, dtype: type[np.floating], K: int, B: int) -> None:
    """At temperature 1, or a = 1 and b = 0, every answer has the bits of the model without calibration."""
    model, X = model_of(head, dtype, K=K, staged=K == 3), rows(B, 6, dtype)
    assert everything(CalibratedModel(model, identity(head)), X) == everything(model, X)
    assert everything(CalibratedModel(model, some(head)), X) != everything(model, X)


@pytest.mark.parametrize("head", CALIBRATED)
def test_the_identity_of_a_network(head: Head) -> None:
    """The same of a model with hidden layers, which tells its layers as before."""
    net = Net(head, (7, 5), dtype=np.float32)
    model = net.parameters().build_model()
    calibrated = CalibratedModel(model, identity(head))
    assert everything(calibrated, net.X) == everything(model, net.X)
    assert calibrated.layers == model.layers
    assert calibrated.single_row_plan() is None


@quick
@given(st.integers(1, 40), st.integers(1, 140), dtypes, st.sampled_from([0.01, 0.5, 1.3, 4.0, 100.0]))
def test_a_temperature_divides_the_logits(K: int, B: int, dtype: type[np.floating], T: float) -> None:
    """The answers have the bits of softmax(Z / T), and its order."""
    model, X = model_of("softmax", dtype, K=K), rows(B, 6, dtype)
    calibrated = CalibratedModel(model, Calibration("temperature", (T,)))
    assert calibrated.predict(X).tobytes() == softmax(model.logits(X), T).tobytes()
    assert calibrated.slope == 1 / T
    if T >= 1:  # below, probabilities of different logits may both round to 1
        order = np.argsort(model.logits(X), axis=1, kind="stable")
        assert (np.diff(np.take_along_axis(calibrated.predict(X), order, axis=1)) >= 0).all()


@quick
@given(st.integers(1, 140), dtypes, st.floats(0.0625, 9, width=32), st.floats(-9, 9, width=32))
def test_platt_is_a_line(B: int, dtype: type[np.floating], a: float, b: float) -> None:
    """The answers have the bits of a sigmoid head whose logit is a z + b."""
    model, X = model_of("sigmoid", dtype), rows(B, 6, dtype)
    calibrated = CalibratedModel(model, Calibration("platt", (a, b)))
    head = LinearModel("sigmoid", np.eye(1, dtype=dtype), np.zeros(1, dtype))
    assert calibrated.predict(X).tobytes() == head.predict(model.logits(X) * dtype(a) + dtype(b)).tobytes()
    assert calibrated.slope == a


@quick
@given(st.data(), heads, dtypes, st.sampled_from([3, 20]))
def test_bits_in_any_batch(data: st.DataObject, head: Head, dtype: type[np.floating], K: int) -> None:
    """Any split of a batch has the bits of the whole batch."""
    model = CalibratedModel(model_of(head, dtype, K=K), some(head))
    X = rows(90, 6, dtype)
    cut = data.draw(st.integers(1, 89))
    parts = model.predict(X[:cut].copy()), model.predict(X[cut:].copy())
    assert model.predict(X).tobytes() == b"".join(P.tobytes() for P in parts)
    one = data.draw(st.integers(0, 89))
    assert model.classify(X[one : one + 1].copy())[1] == model.classify(X)[1][one : one + 1]


@pytest.mark.parametrize("head", CALIBRATED)
def test_what_overflows_only_behind_the_calibration(head: Head) -> None:
    """Rows whose scaled logits overflow float32 are answered by float64; what overflows that is refused as ever."""
    K = 1 if head == "sigmoid" else 3
    model = LinearModel(head, np.full((1, K), 1e30, np.float32), np.zeros(K, np.float32))
    steep = Calibration("temperature", (0.01,)) if head == "softmax" else Calibration("platt", (100.0, 0.0))
    X = np.array([[1e7], [1.0], [-1e7]], np.float32)
    P = CalibratedModel(model, steep).predict(X)
    assert np.isfinite(model.logits(X)).all()
    wide = LinearModel(head, model.weights.astype(float), model.bias.astype(float))
    assert P.tobytes() == CalibratedModel(wide, steep).predict(X.astype(float)).astype(np.float32).tobytes()
    assert CalibratedModel(model, steep).predict(X[:0]).shape == (0, P.shape[1])


@pytest.mark.parametrize(
    ("head", "calibration"), [("ovr", some("softmax")), ("sigmoid", some("softmax")), ("softmax", some("sigmoid"))]
)
def test_a_calibration_fits_its_head(head: Head, calibration: Calibration) -> None:
    """Any other is an error."""
    with pytest.raises(ValueError, match="is calibrated by"):
        CalibratedModel(model_of(head, np.float32), calibration)


def coordinates(calibration: Calibration) -> Array:
    """What is learned: (-ln T,) or (ln a, b)."""
    numbers = np.array(calibration.numbers)
    return -np.log(numbers) if calibration.kind == "temperature" else np.array([np.log(numbers[0]), numbers[1]])


def loss_at(head: Head, Z: Array, Y: Array, t: Array) -> float:
    """The loss of one row of logits behind a calibration of these coordinates, in plain NumPy."""
    scaled = Z * np.exp(t[0]) if head == "softmax" else Z * np.exp(t[0]) + t[1]
    return float(losses(head, scaled, Y)[0])


@quick
@given(heads, st.sampled_from(["hard", "soft"]), st.integers(2, 20), st.integers(0, 200))
def test_derivatives_against_finite_differences(head: Head, kind: str, K: int, seed: int) -> None:
    """One row moves the sums by -h g and h H: of its loss by (-ln T,) or (ln a, b) the slope, and the curvature.

    The curvature is that without what the logits' own curvature adds, which is the slope by the first of them.
    """
    rng, columns, h = np.random.default_rng(seed), 1 if head == "sigmoid" else K, 1.7
    Z, Y = rng.uniform(-1, 1, (1, columns)), np.minimum(targets(head, kind, 1, columns, rng), 1)
    first = Calibration(KINDS[head], tuple(rng.uniform(0.6, 1.5, 1 if head == "softmax" else 2)))
    t = coordinates(first)
    calibrator = CalibrationLearner(head, first, learn=True)
    calibrator.fold(Z, np.zeros(1), None, Y, np.array([h]), learning=True)
    A, c = unpacked(head, calibrator.tensors()["sums"])
    steps, size, slopes = np.eye(t.size), 1e-4, np.zeros(t.size)
    for i, step in enumerate(steps * size):
        slopes[i] = (loss_at(head, Z, Y, t + step) - loss_at(head, Z, Y, t - step)) / (2 * size)
        assert c[i] == pytest.approx(-h * slopes[i], abs=1e-6)
    curved = np.array([[
        (loss_at(head, Z, Y, t + i + j) - loss_at(head, Z, Y, t + i - j) - loss_at(head, Z, Y, t - i + j)
         + loss_at(head, Z, Y, t - i - j)) / (4 * size**2)
        for j in steps * size] for i in steps * size])  # fmt: skip
    curved[0, 0] -= slopes[0]
    # Where a row is badly wrong its curvature is taken for larger than it is, and never for smaller.
    assert A[0, 0] >= h * curved[0, 0] - 1e-5
    p = probabilities(head, (Z / first.numbers[0] if head == "softmax" else Z * first.numbers[0] + t[1]))[0]
    if head == "sigmoid" and p[0] * p[1] > PULL * abs(p[1] - Y[0, 0]):
        np.testing.assert_allclose(A, h * curved, atol=1e-5)
    if head == "softmax" and kind == "soft":
        off = Z[0] / first.numbers[0] - p @ Z[0] / first.numbers[0]
        if Y.sum() * (p @ off**2) > PULL * (abs(p * Y.sum() - Y[0]) @ off**2):
            np.testing.assert_allclose(A, h * curved, atol=1e-5)


def unpacked(head: Head, sums: Array) -> tuple[Array, Array]:
    """A and c of the sums."""
    if head == "softmax":
        return sums[:1, None], sums[3:4]
    return np.array([[sums[0], sums[1]], [sums[1], sums[2]]]), sums[3:]


class Twin:
    """The learning of a calibration in plain NumPy with whole matrices."""

    def __init__(self, head: Head, first: Calibration) -> None:
        self.head, self.first = head, coordinates(first)
        self.t = self.first.copy()
        self.A, self.c = np.zeros((self.t.size, self.t.size)), np.zeros(self.t.size)

    def row(self, z: Array, y: Array, h: float) -> float:
        """Score a row and learn from it; returns its loss."""
        loss, h, v = loss_at(self.head, z[None], y[None], self.t), min(h, MOST), z * np.exp(self.t[0])
        if self.head == "softmax":
            p = np.asarray(probabilities("softmax", v[None])[0], np.float64)
            v = np.maximum(v - v.max(), -REACH)
            e, off = p * y.sum() - y, v - p @ v
            g = np.array([e @ v])
            H = np.array([[max(y.sum() * (p @ off**2), PULL * (abs(e) @ off**2))]])
        else:
            p1 = float(probabilities("sigmoid", v[None] + self.t[1])[0, 1])
            e1, x = p1 - y[0], np.array([np.clip(v[0], -REACH, REACH), 1.0])
            g, H = e1 * x, max(p1 * (1 - p1), PULL * abs(e1)) * np.outer(x, x)
        u = self.t - self.first
        self.A, self.c = KEEP * self.A + h * H, KEEP * self.c + h * (H @ u - g)
        d = np.linalg.solve(self.A + FIRMNESS * np.eye(u.size), self.c)
        w = d * max(0.0, 1 - u.size / (self.c @ d)) if self.c @ d > 0 else 0 * d
        most = np.array([np.log(SCALE_MAX), SHIFT_MAX])[: u.size]
        self.t = np.clip(self.first + u + np.clip(w - u, -STEP, STEP), -most, most)
        return loss


@quick
@given(heads, st.sampled_from(["hard", "soft"]), st.integers(2, 20), st.integers(0, 99), st.floats(0.2, 9))
def test_learning_against_the_plain_twin(head: Head, kind: str, K: int, seed: int, spread: float) -> None:
    """Many rows, of any targets and importance, end where the formula says, with the losses that it says."""
    rng, columns, B = np.random.default_rng(seed), 1 if head == "sigmoid" else K, 150
    Z, h = rng.standard_normal((B, columns)) * spread, np.exp(rng.uniform(-2, 3, B))
    Y = np.minimum(targets(head, kind, B, columns, rng), 1)
    first = Calibration(KINDS[head], tuple(rng.uniform(0.6, 1.5, 1 if head == "softmax" else 2)))
    calibrator, twin = CalibrationLearner(head, first, learn=True), Twin(head, first)
    got = calibrator.fold(Z, np.zeros(B), None, Y, h, learning=True)
    np.testing.assert_allclose(got, [twin.row(*row) for row in zip(Z, Y, h, strict=True)], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(coordinates(calibrator.calibration()), twin.t, rtol=1e-6, atol=1e-7)


@quick
@given(st.data(), heads, dtypes)
def test_blocks_of_any_size(data: st.DataObject, head: Head, dtype: type[np.floating]) -> None:
    """Rows in blocks, in one go, or across a copy and a checkpoint leave the same bits."""
    rng, K, B = np.random.default_rng(5), 1 if head == "sigmoid" else 4, 60
    Z, labels = (rng.standard_normal((B, K)) * 4).astype(dtype), rng.integers(0, max(K, 2), B)
    before = np.where(rng.random(B) < 0.1, np.nan, 0.5)
    whole, parts = (CalibrationLearner(head, identity(head), learn=True) for _ in range(2))
    expected = whole.fold(Z, before.copy(), labels, None, None, learning=True)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, B), max_size=4))), B]
    found = []
    for lo, hi in itertools.pairwise(cuts):
        found.append(parts.fold(Z[lo:hi].copy(), before[lo:hi].copy(), labels[lo:hi].copy(), None, None, learning=True))
        copied, kept = parts.copy(), parts.tensors()
        parts = CalibrationLearner(head, identity(head), learn=True)
        parts.restore(kept)
        assert all(kept[name].tobytes() == t.tobytes() for name, t in copied.tensors().items())
    assert np.concatenate(found).tobytes() == expected.tobytes()
    assert np.isnan(expected).sum() == np.isnan(before).sum()
    assert all(whole.tensors()[name].tobytes() == t.tobytes() for name, t in parts.tensors().items())


@quick
@given(st.data(), heads, dtypes)
def test_any_rows_leave_numbers_within_bounds(data: st.DataObject, head: Head, dtype: type[np.floating]) -> None:
    """Whatever finite logits come, the numbers stay finite and within their bounds, and losses finite or skipped."""
    K = 1 if head == "sigmoid" else 3
    most = float(np.finfo(dtype).max)
    elements = st.one_of(st.floats(-9, 9, width=32), st.sampled_from([0.0, 1e9, -1e9, 1e30, -1e30, most, -most]))
    Z = data.draw(arrays(dtype, (20, K), elements=elements.map(dtype)))
    labels = data.draw(arrays(np.int64, 20, elements=st.integers(0, max(K, 2) - 1)))
    calibrator = CalibrationLearner(head, identity(head), learn=True)
    found = calibrator.fold(Z, np.zeros(20), labels, None, None, learning=True)
    assert not np.isinf(found).any()
    assert all(np.isfinite(t).all() for t in calibrator.tensors().values())
    assert 0.01 <= calibrator.calibration().numbers[0] <= 100
    nothing = dict.fromkeys(("skipped_rows", "steps", "step_norm", "mean_step_norm"), 0.0)
    assert calibrator.progress(nothing)["skipped_rows"] == np.isnan(found).sum()


def test_what_does_not_learn_stays() -> None:
    """Without learning, by the manifest or by a pause, rows are scored and counted, and the numbers stay."""
    rng = np.random.default_rng(0)
    Z, labels = rng.standard_normal((30, 3)), rng.integers(0, 3, 30)
    for learn, learning in ((False, True), (True, False)):
        calibrator = CalibrationLearner("softmax", some("softmax"), learn=learn)
        found = calibrator.fold(Z, np.zeros(30), labels, None, None, learning=learning)
        assert calibrator.calibration() == some("softmax")
        np.testing.assert_allclose(found, losses("softmax", Z / 2.7, np.eye(3)[labels]))
        assert calibrator.window.any()
    with pytest.raises(ValueError, match="not those"):
        calibrator.restore({"numbers": np.zeros(2)})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.25, 4.0])
@pytest.mark.parametrize("head", CALIBRATED)
def test_a_miscalibrated_model_is_calibrated(head: Head, scale: float, dtype: type[np.floating]) -> None:
    """Labels drawn by the softmax of logits that are `scale` times too small: error and loss fall, T finds it."""
    rng, K, B = np.random.default_rng(7), 1 if head == "sigmoid" else 5, 6000
    true = rng.standard_normal((B, K)) * 2
    P = np.asarray(probabilities(head, true), np.float64)
    labels = (P.cumsum(axis=1) < rng.random((B, 1))).sum(axis=1).clip(0, P.shape[1] - 1)
    Z = (true * scale).astype(dtype)
    plain, learned = (CalibrationLearner(head, identity(head), learn=learn) for learn in (False, True))
    before, after = (one.fold(Z, np.zeros(B), labels, None, None, learning=True) for one in (plain, learned))
    errors = [reliability_diagram(one.window, B)["expected_error"] for one in (plain, learned)]
    assert errors[1] < min(0.05, 0.5 * errors[0])
    assert after[1000:].mean() < before[1000:].mean() - 0.02
    found = learned.calibration().numbers
    assert (found[0] if head == "softmax" else 1 / found[0]) == pytest.approx(scale, rel=0.2)


@pytest.mark.parametrize("head", CALIBRATED)
def test_a_calibrated_model_is_left_alone(head: Head) -> None:
    """Labels that the model itself drew, twenty times: half of the passes or more end with the first numbers' bits."""
    K, B, stayed, cost = 1 if head == "sigmoid" else 5, 2000, 0, 0.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        Z = rng.standard_normal((B, K)) * 2
        P = np.asarray(probabilities(head, Z), np.float64)
        labels = (P.cumsum(axis=1) < rng.random((B, 1))).sum(axis=1).clip(0, P.shape[1] - 1)
        plain, learned = (
            CalibrationLearner(head, some(head) if seed else identity(head), learn=learn) for learn in (False, True)
        )
        Z = as_given(head, Z, learned.first)
        before, after = (one.fold(Z, np.zeros(B), labels, None, None, learning=True) for one in (plain, learned))
        stayed += learned.calibration() == learned.first
        cost += after.sum() - before.sum()
    assert stayed >= 10
    assert cost / 20 < 3  # nats in a pass: of what 2,000 rows lose, some thousandth


def drawn(head: Head, Z: Array, rng: np.random.Generator) -> Array:
    """Labels that answers to these logits are right about as often as they say."""
    P = np.asarray(probabilities(head, Z), np.float64)
    return (P.cumsum(axis=1) < rng.random((len(Z), 1))).sum(axis=1).clip(0, P.shape[1] - 1)


@pytest.mark.parametrize("size", [0.2, 0.5, 2.0, 5.0, 20.0])
@pytest.mark.parametrize(("head", "K"), [("softmax", 2), ("softmax", 3), ("softmax", 10), ("sigmoid", 1)])
def test_chance_moves_no_young_calibration(head: Head, K: int, size: float) -> None:
    """The first 30 rows of 400 calibrated models, of scores of any size: T, a and the loss hardly move."""
    rng, beyond, before, after, first = np.random.default_rng(K), 0, 0.0, 0.0, some(head)
    for _ in range(400):
        true = rng.standard_normal((30, 3)) @ rng.standard_normal((3, K)) * (size if K > 1 else size / 1.7)
        labels, Z = drawn(head, true, rng), as_given(head, true, first)
        learned, scales = CalibrationLearner(head, first, learn=True), []
        for i in range(30):
            after += learned.fold(Z[i : i + 1], np.zeros(1), labels[i : i + 1], None, None, learning=True)[0]
            scales.append(learned.calibration().numbers[0] / first.numbers[0])
        before += (
            CalibrationLearner(head, first, learn=False).fold(Z, np.zeros(30), labels, None, None, learning=False).sum()
        )
        beyond += max(scales) > 1.5 or min(scales) < 1 / 1.5
    assert beyond <= 4
    assert after <= before * 1.002


@pytest.mark.parametrize("size", [30.0, 1e3, 1e9, 1e30])
@pytest.mark.parametrize("head", CALIBRATED)
def test_one_row_moves_little_and_holds_nothing_back(head: Head, size: float) -> None:
    """After an outlier with the least likely label, 300 random labels lead where they would have, some rows later."""
    rng, K = np.random.default_rng(4), 1 if head == "sigmoid" else 3
    Z, labels = rng.standard_normal((300, K)) * 4, rng.integers(0, max(K, 2), 300)
    outlier, wrong = np.full((1, K), -size), np.array([K - 1 if K > 1 else 1])
    if K > 1:
        outlier[0, 0] = size
    first = identity(head)

    def scale(calibrator: CalibrationLearner) -> float:
        return float(abs(coordinates(calibrator.calibration())[0]))

    def learn(calibrator: CalibrationLearner, rows: slice) -> float:
        calibrator.fold(Z[rows].copy(), np.zeros(len(Z[rows])), labels[rows].copy(), None, None, learning=True)
        return scale(calibrator)

    met, not_met = (CalibrationLearner(head, first, learn=True) for _ in range(2))
    met.fold(outlier, np.zeros(1), wrong, None, None, learning=True)
    assert scale(met) <= 0.1
    learn(met, slice(0, 40))
    learn(not_met, slice(0, 20))
    # Forty rows after the outlier it is further than it would be after twenty without, and so after three hundred.
    assert scale(met) > scale(not_met) > 0.5
    assert learn(met, slice(40, 300)) > learn(not_met, slice(20, 200))
    before = scale(met)
    met.fold(outlier, np.zeros(1), wrong, None, np.array([100.0]), learning=True)
    assert abs(scale(met) - before) <= 0.1 + 1e-9
    assert learn(met, slice(0, 300)) > before


def as_given(head: Head, Z: Array, calibration: Calibration) -> Array:
    """The logits that a calibration makes these of."""
    numbers = calibration.numbers
    return Z * numbers[0] if head == "softmax" else (Z - numbers[1]) / numbers[0]


def test_a_shifted_model_is_calibrated() -> None:
    """Platt's b undoes a constant on every logit."""
    rng, B = np.random.default_rng(8), 6000
    true = rng.standard_normal((B, 1)) * 2
    labels = (rng.random((B, 1)) < 1 / (1 + np.exp(-true)))[:, 0].astype(np.int64)
    learned = CalibrationLearner("sigmoid", identity("sigmoid"), learn=True)
    learned.fold(true + 3, np.zeros(B), labels, None, None, learning=True)
    a, b = learned.calibration().numbers
    assert -b / a == pytest.approx(3, rel=0.1)


@quick
@given(st.integers(0, 1500), st.integers(0, 99))
def test_reliability(rows_: int, seed: int) -> None:
    """Ten bins that hold every recent row once, and the mean difference of confidence and truth over them."""
    rng = np.random.default_rng(seed)
    window = np.stack([rng.uniform(0.2, 1, 1000), rng.integers(0, 2, 1000).astype(np.float64)])
    window[0, ::7] = 1.0
    told = reliability_diagram(window, rows_)
    n = min(rows_, 1000)
    assert told["rows"] == sum(one["rows"] for one in told["bins"]) == n
    assert len(told["bins"]) == BINS
    if n == 0:
        assert told["expected_error"] is None
        return
    at = np.minimum((window[0, :n] * 10).astype(int), 9)
    parts = [abs(window[0, :n][at == b].sum() - window[1, :n][at == b].sum()) for b in range(10)]
    assert told["expected_error"] == pytest.approx(sum(parts) / n)
    for b, one in enumerate(told["bins"]):
        assert (one["confidence"] is None) == (one["rows"] == 0)
        if one["rows"]:
            assert one["confidence"] == pytest.approx(window[0, :n][at == b].mean())
            assert one["accuracy"] == pytest.approx(window[1, :n][at == b].mean())
