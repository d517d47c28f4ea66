"""Rows that are held out: a tenth, the same ones whatever the size of blocks is."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.train.held_out_rows import HeldOutRows
from tests.support.budgets import examples


@given(seed=st.integers(0, 2**63 - 1), cuts=st.lists(st.integers(0, 1000), max_size=6))
@settings(max_examples=examples(100), deadline=None)
def test_the_choice_does_not_depend_on_blocks(seed: int, cuts: list[int]) -> None:
    for rows in (HeldOutRows("hash", seed), HeldOutRows("last", seed, 1000)):
        borders = [0, *sorted(cuts), 1000]
        parts = [rows.mark(first, end - first) for first, end in pairwise(borders)]
        assert np.array_equal(np.concatenate(parts), rows.mark(0, 1000))


def test_about_a_tenth_is_held_out_and_seeds_differ() -> None:
    marks = [HeldOutRows("hash", seed).mark(0, 100_000) for seed in range(4)]
    assert all(0.097 < mark.mean() < 0.103 for mark in marks)
    # Of two independent choices a tenth of the rows of one are rows of the other.
    assert 0.08 < marks[1][marks[0]].mean() < 0.12


def test_the_hash_is_splitmix64() -> None:
    """A release that changed it would hold out rows that others train on."""
    expected = [row for row in range(600) if splitmix64((splitmix64(7) + row) % 2**64) < int(0.1 * 2**64)]
    assert np.flatnonzero(HeldOutRows("hash", 7).mark(0, 600)).tolist() == expected


def test_the_last_rows_are_the_last_tenth() -> None:
    assert np.flatnonzero(HeldOutRows("last", 0, 34).mark(0, 34)).tolist() == [31, 32, 33]


def splitmix64(state: int) -> int:
    """Return the output of SplitMix64, in Python's integers."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)
