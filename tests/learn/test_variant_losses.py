"""Sums of the losses of variants: over shared rows, and along the rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.learn.variant_fold import BatchLosses
from service.learn.variant_losses import POINTS_MAX, VariantLosses


@given(st.lists(st.integers(0, 400), max_size=8), st.integers(0, 99))
def test_a_curve_has_the_mean_loss_of_its_rows(sizes: list[int], seed: int) -> None:
    """However rows are split into batches, each point is the mean over as many rows, without skipped ones."""
    rng, rows = np.random.default_rng(seed), sum(sizes)
    losses = rng.exponential(size=(3, rows))
    losses[rng.random(losses.shape) < 0.3] = np.nan
    shared = rng.random(rows) < 0.5
    shared &= ~np.isnan(losses).any(axis=0)
    sums = VariantLosses(3)
    for end, size in zip(np.cumsum(sizes), sizes, strict=True):
        sums.add(BatchLosses(losses[:, end - size : end], shared[end - size : end]))
    width = 1
    while width * POINTS_MAX < rows:
        width *= 2
    for fold, row in enumerate(losses):
        ends, means = sums.curve(fold)
        starts = range(0, rows, width)
        assert ends.tolist() == [min(start + width, rows) for start in starts]
        known = [row[start : start + width][~np.isnan(row[start : start + width])] for start in starts]
        np.testing.assert_allclose(means, [one.mean() if one.size else np.nan for one in known], rtol=1e-12)
        assert sums.shared_rows == shared.sum()
        expected = row[shared].mean() if shared.any() else None
        found = sums.shared_loss(fold)
        assert found == expected if expected is None or found is None else abs(found - expected) < 1e-12 * rows
