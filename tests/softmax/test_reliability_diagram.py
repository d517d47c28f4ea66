"""Reliability diagrams: bins, and the expected calibration error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.softmax.reliability_diagram import BINS, reliability_diagram

quick = settings(deadline=None, max_examples=60)


@quick
@given(st.integers(0, 1500), st.integers(0, 99))
def test_reliability(rows_: int, seed: int) -> None:
    """Ten bins contain every recent row once, and the error is the mean difference of confidence and accuracy."""
    rng = np.random.default_rng(seed)
    window = np.stack([rng.uniform(0.2, 1, 1000), rng.integers(0, 2, 1000).astype(np.float64)])
    window[0, ::7] = 1.0
    diagram = reliability_diagram(window, rows_)
    n = min(rows_, 1000)
    assert diagram["rows"] == sum(one["rows"] for one in diagram["bins"]) == n
    assert len(diagram["bins"]) == BINS
    if n == 0:
        assert diagram["expected_error"] is None
        return
    at = np.minimum((window[0, :n] * 10).astype(int), 9)
    parts = [abs(window[0, :n][at == b].sum() - window[1, :n][at == b].sum()) for b in range(10)]
    assert diagram["expected_error"] == pytest.approx(sum(parts) / n)
    for b, one in enumerate(diagram["bins"]):
        assert (one["confidence"] is None) == (one["rows"] == 0)
        if one["rows"]:
            assert one["confidence"] == pytest.approx(window[0, :n][at == b].mean())
            assert one["accuracy"] == pytest.approx(window[1, :n][at == b].mean())
