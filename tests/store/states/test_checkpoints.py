"""The ladder of checkpoints: no state is far from one, and their bytes are limited."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.store.states.checkpoints import checkpoints_to_keep, thin_checkpoints
from service.store.states.state_folder import list_seqs
from tests.support.state_files import write_state


@given(st.integers(1, 400), st.integers(1, 50))
def test_the_way_back_is_a_quarter_of_the_age(interval: int, rungs: int) -> None:
    """No gap of the ladder is wider than the interval or a quarter of its youngest event's age."""
    ladder: list[int] = []
    for step in range(1, rungs * 8):
        head = step * interval
        ladder = sorted(checkpoints_to_keep(dict.fromkeys([*ladder, head], 1), 10**9))
        assert ladder[-1] == head
        for older, newer in zip([0, *ladder], ladder, strict=False):
            assert newer - older <= max(interval, (head - newer) / 4)
    assert len(ladder) <= 12 + 11 * np.log10(len(ladder) + rungs * 8)


@given(st.dictionaries(st.integers(1, 10**6), st.integers(1, 100), min_size=1), st.integers(0, 500))
def test_the_bytes_are_capped(sizes: dict[int, int], bytes_max: int) -> None:
    """The bytes of the checkpoints are limited, and the newest one always stays."""
    stay = checkpoints_to_keep(sizes, bytes_max)
    assert max(sizes) in stay <= sizes.keys()
    assert sum(sizes[seq] for seq in stay) <= bytes_max or len(stay) == 1


def test_without_checkpoints_none_is_kept() -> None:
    assert checkpoints_to_keep({}, 10) == set()


def test_a_folder_is_thinned(tmp_path: Path) -> None:
    for seq in range(1, 101):
        write_state(tmp_path, seq)
    expected = sorted(checkpoints_to_keep(dict.fromkeys(range(1, 101), 1), 10**9))
    thin_checkpoints(tmp_path, 10**9)
    assert list_seqs(tmp_path) == expected
    assert 10 < len(expected) < 40
    thin_checkpoints(tmp_path, 1)
    assert list_seqs(tmp_path) == [100]
