"""Means and scales: those of NumPy, with the same bits however the numbers are cut into blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.train import moments
from service.train.moments import Moments
from tests.support.budgets import examples


@given(seed=st.integers(0, 99), size=st.sampled_from([1, 2, 5]), cuts=st.lists(st.integers(0, 1000), max_size=8))
@settings(max_examples=examples(200), deadline=None)
def test_blocks_change_no_bit(seed: int, size: int, cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments, "CHUNK", 96)
        values = np.random.default_rng(seed).normal(1e3, 2, (1000, size))
        whole, parts = Moments(size), Moments(size)
        whole.add(values)
        for part in np.split(values, sorted(cuts)):
            parts.add(part)
        assert parts.mean.tobytes() == whole.mean.tobytes()
        assert parts.scale.tobytes() == whole.scale.tobytes()
        np.testing.assert_allclose(whole.mean, values.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(whole.scale, values.std(axis=0), rtol=1e-11)


def test_equal_numbers_have_the_scale_1() -> None:
    constant, nothing = Moments(), Moments()
    constant.add(np.full(50_000, 0.1))
    assert constant.is_constant == (constant.scale[0] == 1.0)
    assert constant.mean[0] == pytest.approx(0.1, rel=1e-12)
    assert (nothing.mean[0], nothing.scale[0]) == (0.0, 1.0)
