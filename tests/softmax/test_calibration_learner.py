"""Learning a calibration: its formulas, bits and bounds, and its effect on models."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.softmax.calibration import KINDS, Calibration
from service.softmax.calibration_learner import CalibrationLearner
from service.softmax.classifier import Head
from service.softmax.kernels.calibration_kernels import FIRMNESS, KEEP, MOST, PULL, REACH, SCALE_MAX, SHIFT_MAX, STEP
from service.softmax.reliability_diagram import reliability_diagram
from tests.support.calibrations import fixed_calibration, identity_calibration
from tests.support.reference import DTYPES, Array, losses, probabilities, targets

quick = settings(deadline=None, max_examples=60)


CALIBRATED: tuple[Head, ...] = ("softmax", "sigmoid")


heads, dtypes = st.sampled_from(CALIBRATED), st.sampled_from(DTYPES)


def coordinates(calibration: Calibration) -> Array:
    """Return the learned parameters u: (-ln T,) or (ln a, b)."""
    numbers = np.array(calibration.numbers)
    return -np.log(numbers) if calibration.kind == "temperature" else np.array([np.log(numbers[0]), numbers[1]])


def loss_at(head: Head, Z: Array, Y: Array, t: Array) -> float:
    """Return the loss of one row of logits with the calibration t, in plain NumPy."""
    scaled = Z * np.exp(t[0]) if head == "softmax" else Z * np.exp(t[0]) + t[1]
    return float(losses(head, scaled, Y)[0])


@quick
@given(heads, st.sampled_from(["hard", "soft"]), st.integers(2, 20), st.integers(0, 200))
def test_derivatives_against_finite_differences(head: Head, kind: str, K: int, seed: int) -> None:
    """One row changes the sums by -h g and h H, the slope and curvature of its loss.

    H excludes the curvature of the logits themselves, which is the slope in the first parameter.
    """
    rng, columns, h = np.random.default_rng(seed), 1 if head == "sigmoid" else K, 1.7
    Z, Y = rng.uniform(-1, 1, (1, columns)), np.minimum(targets(head, kind, 1, columns, rng), 1)
    first = Calibration(KINDS[head], tuple(rng.uniform(0.6, 1.5, 1 if head == "softmax" else 2)))
    t = coordinates(first)
    calibrator = CalibrationLearner(head, first, learn=True)
    calibrator.fold(Z, np.zeros(1), None, Y, np.array([h]), learning=True)
    A, c = unpack_sums(head, calibrator.tensors()["sums"])
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


def unpack_sums(head: Head, sums: Array) -> tuple[Array, Array]:
    """Return A and c of the sums."""
    if head == "softmax":
        return sums[:1, None], sums[3:4]
    return np.array([[sums[0], sums[1]], [sums[1], sums[2]]]), sums[3:]


class ReferenceCalibration:
    """A reference implementation of calibration learning in plain NumPy, with full matrices."""

    def __init__(self, head: Head, first: Calibration) -> None:
        self.head, self.first = head, coordinates(first)
        self.t = self.first.copy()
        self.A, self.c = np.zeros((self.t.size, self.t.size)), np.zeros(self.t.size)

    def row(self, z: Array, y: Array, h: float) -> float:
        """Score a row, learn from it, and return its loss."""
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
def test_learning_against_the_reference(head: Head, kind: str, K: int, seed: int, spread: float) -> None:
    """The learned numbers and the losses equal those of the reference implementation."""
    rng, columns, B = np.random.default_rng(seed), 1 if head == "sigmoid" else K, 150
    Z, h = rng.standard_normal((B, columns)) * spread, np.exp(rng.uniform(-2, 3, B))
    Y = np.minimum(targets(head, kind, B, columns, rng), 1)
    first = Calibration(KINDS[head], tuple(rng.uniform(0.6, 1.5, 1 if head == "softmax" else 2)))
    calibrator, reference = CalibrationLearner(head, first, learn=True), ReferenceCalibration(head, first)
    got = calibrator.fold(Z, np.zeros(B), None, Y, h, learning=True)
    np.testing.assert_allclose(got, [reference.row(*row) for row in zip(Z, Y, h, strict=True)], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(coordinates(calibrator.calibration()), reference.t, rtol=1e-6, atol=1e-7)


@quick
@given(st.data(), heads, dtypes)
def test_blocks_of_any_size(data: st.DataObject, head: Head, dtype: type[np.floating]) -> None:
    """Rows in blocks, at once, or across a copy and a checkpoint give the same bits."""
    rng, K, B = np.random.default_rng(5), 1 if head == "sigmoid" else 4, 60
    Z, labels = (rng.standard_normal((B, K)) * 4).astype(dtype), rng.integers(0, max(K, 2), B)
    before = np.where(rng.random(B) < 0.1, np.nan, 0.5)
    whole, parts = (CalibrationLearner(head, identity_calibration(head), learn=True) for _ in range(2))
    expected = whole.fold(Z, before.copy(), labels, None, None, learning=True)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, B), max_size=4))), B]
    found = []
    for lo, hi in itertools.pairwise(cuts):
        found.append(parts.fold(Z[lo:hi].copy(), before[lo:hi].copy(), labels[lo:hi].copy(), None, None, learning=True))
        copied, tensors = parts.copy(), parts.tensors()
        parts = CalibrationLearner(head, identity_calibration(head), learn=True)
        parts.restore(tensors)
        assert all(tensors[name].tobytes() == t.tobytes() for name, t in copied.tensors().items())
    assert np.concatenate(found).tobytes() == expected.tobytes()
    assert np.isnan(expected).sum() == np.isnan(before).sum()
    assert all(whole.tensors()[name].tobytes() == t.tobytes() for name, t in parts.tensors().items())


@quick
@given(st.data(), heads, dtypes)
def test_any_rows_leave_numbers_within_bounds(data: st.DataObject, head: Head, dtype: type[np.floating]) -> None:
    """For any finite logits the numbers stay within their bounds, and losses are finite or the row is skipped."""
    K = 1 if head == "sigmoid" else 3
    most = float(np.finfo(dtype).max)
    elements = st.one_of(st.floats(-9, 9, width=32), st.sampled_from([0.0, 1e9, -1e9, 1e30, -1e30, most, -most]))
    Z = data.draw(arrays(dtype, (20, K), elements=elements.map(dtype)))
    labels = data.draw(arrays(np.int64, 20, elements=st.integers(0, max(K, 2) - 1)))
    calibrator = CalibrationLearner(head, identity_calibration(head), learn=True)
    found = calibrator.fold(Z, np.zeros(20), labels, None, None, learning=True)
    assert not np.isinf(found).any()
    assert all(np.isfinite(t).all() for t in calibrator.tensors().values())
    assert 0.01 <= calibrator.calibration().numbers[0] <= 100
    nothing = dict.fromkeys(("skipped_rows", "steps", "step_norm", "mean_step_norm"), 0.0)
    assert calibrator.progress(nothing)["skipped_rows"] == np.isnan(found).sum()


def test_learning_can_be_off() -> None:
    """Without learning, rows are scored and counted, and the numbers do not change."""
    rng = np.random.default_rng(0)
    Z, labels = rng.standard_normal((30, 3)), rng.integers(0, 3, 30)
    for learn, learning in ((False, True), (True, False)):
        calibrator = CalibrationLearner("softmax", fixed_calibration("softmax"), learn=learn)
        found = calibrator.fold(Z, np.zeros(30), labels, None, None, learning=learning)
        assert calibrator.calibration() == fixed_calibration("softmax")
        np.testing.assert_allclose(found, losses("softmax", Z / 2.7, np.eye(3)[labels]))
        assert calibrator.window.any()
    with pytest.raises(ValueError, match="not those"):
        calibrator.restore({"numbers": np.zeros(2)})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.25, 4.0])
@pytest.mark.parametrize("head", CALIBRATED)
def test_a_miscalibrated_model_is_calibrated(head: Head, scale: float, dtype: type[np.floating]) -> None:
    """For logits that are `scale` times too large, the error and the loss decrease, and T becomes `scale`."""
    rng, K, B = np.random.default_rng(7), 1 if head == "sigmoid" else 5, 6000
    true = rng.standard_normal((B, K)) * 2
    P = np.asarray(probabilities(head, true), np.float64)
    labels = (P.cumsum(axis=1) < rng.random((B, 1))).sum(axis=1).clip(0, P.shape[1] - 1)
    Z = (true * scale).astype(dtype)
    plain, learned = (CalibrationLearner(head, identity_calibration(head), learn=learn) for learn in (False, True))
    before, after = (one.fold(Z, np.zeros(B), labels, None, None, learning=True) for one in (plain, learned))
    errors = [reliability_diagram(one.window, B)["expected_error"] for one in (plain, learned)]
    assert errors[1] < min(0.05, 0.5 * errors[0])
    assert after[1000:].mean() < before[1000:].mean() - 0.02
    found = learned.calibration().numbers
    assert (found[0] if head == "softmax" else 1 / found[0]) == pytest.approx(scale, rel=0.2)


@pytest.mark.parametrize("head", CALIBRATED)
def test_a_calibrated_model_mostly_does_not_change(head: Head) -> None:
    """For a calibrated model, at least half of twenty runs end with the bits of the first numbers."""
    K, B, unchanged, cost = 1 if head == "sigmoid" else 5, 2000, 0, 0.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        Z = rng.standard_normal((B, K)) * 2
        P = np.asarray(probabilities(head, Z), np.float64)
        labels = (P.cumsum(axis=1) < rng.random((B, 1))).sum(axis=1).clip(0, P.shape[1] - 1)
        plain, learned = (
            CalibrationLearner(head, fixed_calibration(head) if seed else identity_calibration(head), learn=learn)
            for learn in (False, True)
        )
        Z = uncalibrate(head, Z, learned.first)
        before, after = (one.fold(Z, np.zeros(B), labels, None, None, learning=True) for one in (plain, learned))
        unchanged += learned.calibration() == learned.first
        cost += after.sum() - before.sum()
    assert unchanged >= 10
    assert cost / 20 < 3  # nats in a pass: of what 2,000 rows lose, some thousandth


def draw_labels(head: Head, Z: Array, rng: np.random.Generator) -> Array:
    """Return labels draw_labels from the probabilities of logits."""
    P = np.asarray(probabilities(head, Z), np.float64)
    return (P.cumsum(axis=1) < rng.random((len(Z), 1))).sum(axis=1).clip(0, P.shape[1] - 1)


@pytest.mark.parametrize("size", [0.2, 0.5, 2.0, 5.0, 20.0])
@pytest.mark.parametrize(("head", "K"), [("softmax", 2), ("softmax", 3), ("softmax", 10), ("sigmoid", 1)])
def test_chance_hardly_changes_a_new_calibration(head: Head, K: int, size: float) -> None:
    """Over the first 30 rows of 400 calibrated models, T, a and the loss hardly change."""
    rng, beyond, before, after, first = np.random.default_rng(K), 0, 0.0, 0.0, fixed_calibration(head)
    for _ in range(400):
        true = rng.standard_normal((30, 3)) @ rng.standard_normal((3, K)) * (size if K > 1 else size / 1.7)
        labels, Z = draw_labels(head, true, rng), uncalibrate(head, true, first)
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
def test_one_outlier_has_a_limited_effect(head: Head, size: float) -> None:
    """After an outlier, 300 rows with random labels still lead to the same calibration."""
    rng, K = np.random.default_rng(4), 1 if head == "sigmoid" else 3
    Z, labels = rng.standard_normal((300, K)) * 4, rng.integers(0, max(K, 2), 300)
    outlier, wrong = np.full((1, K), -size), np.array([K - 1 if K > 1 else 1])
    if K > 1:
        outlier[0, 0] = size
    first = identity_calibration(head)

    def scale(calibrator: CalibrationLearner) -> float:
        return float(abs(coordinates(calibrator.calibration())[0]))

    def learn(calibrator: CalibrationLearner, rows: slice) -> float:
        calibrator.fold(Z[rows].copy(), np.zeros(len(Z[rows])), labels[rows].copy(), None, None, learning=True)
        return scale(calibrator)

    with_outlier, without_outlier = (CalibrationLearner(head, first, learn=True) for _ in range(2))
    with_outlier.fold(outlier, np.zeros(1), wrong, None, None, learning=True)
    assert scale(with_outlier) <= 0.1
    learn(with_outlier, slice(0, 40))
    learn(without_outlier, slice(0, 20))
    # Forty rows after the outlier it is further than it would be after twenty without, and so after three hundred.
    assert scale(with_outlier) > scale(without_outlier) > 0.5
    assert learn(with_outlier, slice(40, 300)) > learn(without_outlier, slice(20, 200))
    before = scale(with_outlier)
    with_outlier.fold(outlier, np.zeros(1), wrong, None, np.array([100.0]), learning=True)
    assert abs(scale(with_outlier) - before) <= 0.1 + 1e-9
    assert learn(with_outlier, slice(0, 300)) > before


def uncalibrate(head: Head, Z: Array, calibration: Calibration) -> Array:
    """Return the logits that a calibration maps to Z."""
    numbers = calibration.numbers
    return Z * numbers[0] if head == "softmax" else (Z - numbers[1]) / numbers[0]


def test_a_shifted_model_is_calibrated() -> None:
    """Platt's b removes a constant that was added to every logit."""
    rng, B = np.random.default_rng(8), 6000
    true = rng.standard_normal((B, 1)) * 2
    labels = (rng.random((B, 1)) < 1 / (1 + np.exp(-true)))[:, 0].astype(np.int64)
    learned = CalibrationLearner("sigmoid", identity_calibration("sigmoid"), learn=True)
    learned.fold(true + 3, np.zeros(B), labels, None, None, learning=True)
    a, b = learned.calibration().numbers
    assert -b / a == pytest.approx(3, rel=0.1)
