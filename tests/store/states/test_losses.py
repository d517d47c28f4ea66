"""Readers find the latest losses of the writer."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.states.losses import READABLE_ROWS, LossReader, LossWriter


def test_a_reader_finds_the_losses_of_an_event(tmp_path: Path) -> None:
    """A reader finds the rows of an event in their order, with label and answer, and none of an unknown event."""
    reader = LossReader(tmp_path / "losses")
    assert reader.read_losses(1) is None
    writer = LossWriter(tmp_path / "losses")
    assert reader.read_losses(1) is None
    writer.write_losses(np.array([1, 1, 3]), np.array([0.5, 0.25, np.nan]))
    assert reader.read_losses(1) == [0.5, 0.25]
    assert np.isnan(reader.read_losses(3) or [0.0]).all()
    assert reader.read_losses(2) is None
    writer.write_losses(np.array([4]), np.array([2.0]), np.array([3]), np.array([5]))
    assert reader.read_rows([1, 2, 4]) == {1: [(0.5, -1, -1), (0.25, -1, -1)], 4: [(2.0, 3, 5)]}


@given(st.lists(st.integers(1, READABLE_ROWS + 9), min_size=1, max_size=12))
def test_the_newest_rows_are_always_there(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    """The newest rows are readable however often the ring was overwritten."""
    folder = tmp_path_factory.mktemp("losses")
    writer, reader = LossWriter(folder / "losses"), LossReader(folder / "losses")
    for seq, size in enumerate(sizes, 1):
        losses = np.arange(size) + seq / 100
        writer.write_losses(np.full(size, seq), losses)
        assert reader.read_losses(seq) == losses[-READABLE_ROWS:].tolist()
    if sum(sizes[1:]) >= READABLE_ROWS:
        assert reader.read_losses(1) is None


def test_erased_losses_are_in_no_byte_of_the_file(tmp_path: Path) -> None:
    """Erased losses are in no byte of the file, and other losses stay."""
    writer, reader = LossWriter(tmp_path / "losses"), LossReader(tmp_path / "losses")
    writer.write_losses(np.array([1]), np.array([0.125]))
    writer.write_losses(np.full(READABLE_ROWS, 2), np.full(READABLE_ROWS, 0.25))
    writer.write_losses(np.array([3, 4, 3]), np.array([0.3, 0.4, 0.35]))
    writer.erase_events({1, 3, 99})
    text = (tmp_path / "losses").read_bytes()
    assert not [loss for loss in (0.125, 0.3, 0.35) if np.array(loss).tobytes() in text]
    writer.write_losses(np.array([5]), np.array([0.5]))
    assert (reader.read_losses(3), reader.read_losses(4), reader.read_losses(5)) == (None, [0.4], [0.5])
    assert reader.read_losses(2) == [0.25] * (READABLE_ROWS - 4)


def test_a_ring_has_its_place_on_the_disk(tmp_path: Path) -> None:
    """The file takes all its disk blocks at once, so a full disk cannot kill a later writer."""
    LossWriter(tmp_path / "losses")
    status = (tmp_path / "losses").stat()
    assert status.st_blocks * 512 >= status.st_size > 1 << 20


def test_a_restarted_learner_begins_a_new_ring(tmp_path: Path) -> None:
    """A reader follows the new ring of a restarted learner."""
    reader = LossReader(tmp_path / "losses")
    LossWriter(tmp_path / "losses").write_losses(np.array([7]), np.array([1.0]))
    assert reader.read_losses(7) == [1.0]
    second = LossWriter(tmp_path / "losses")
    assert reader.read_losses(7) is None
    second.write_losses(np.array([8]), np.array([2.0]))
    assert reader.read_losses(8) == [2.0]
