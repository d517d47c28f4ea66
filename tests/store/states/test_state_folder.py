"""Folders of states: listing, the newest valid file, and deleting."""

from pathlib import Path

from service.store.states.snapshots import read_fields
from service.store.states.state_folder import delete_states, list_seqs, prune_snapshots, read_latest
from tests.support.state_files import write_state


def test_the_newest_whole_file_is_found(tmp_path: Path) -> None:
    """Other names are ignored, and a damaged newest file is skipped."""
    assert (list_seqs(tmp_path / "missing"), read_latest(tmp_path / "missing")) == ([], None)
    for seq in (3, 20, 100):
        write_state(tmp_path, seq, seq=seq)
    for name in ("007", "x", ".9.abc", "9" * 14):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "100").write_bytes(b"damaged")
    assert list_seqs(tmp_path) == [3, 20, 100]
    found = [read_latest(tmp_path, at_most) for at_most in (None, 99, 19, 2)]
    assert [pair and (pair[0], pair[1].fields["seq"]) for pair in found] == [(20, 20), (20, 20), (3, 3), None]


def test_old_files_and_strays_go(tmp_path: Path) -> None:
    for seq in range(5):
        write_state(tmp_path, seq)
    (tmp_path / ".9.abc").write_bytes(b"")
    prune_snapshots(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_files_with_a_forgotten_event_are_deleted(tmp_path: Path) -> None:
    """Files stay that were folded after the FORGET, or whose lineage does not contain the event."""
    for seq, epoch in ((1, 0), (5, 0), (6, 1), (9, 1), (12, 2)):
        write_state(tmp_path, seq, epoch=epoch)
    (tmp_path / "7").write_bytes(b"damaged")
    write_state(tmp_path, 8, epoch="none")
    assert read_fields(tmp_path / "9")["epoch"] == 1
    assert delete_states(tmp_path, 2, lambda seq: seq >= 5) == [5, 6, 7, 8, 9]
    assert list_seqs(tmp_path) == [1, 12]
