"""A small share of the campaigns on states of the disk, on histories and on folds; each of them can fail."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.learn import follow
from service.store.directory import ack_marks as marks
from service.store.log.admin_payloads import dump_seq
from service.store.log.events import Event, Kind
from service.store.states import snapshots
from tests.torture import bit_flips as damage
from tests.torture import fold_determinism as cut
from tests.torture.power_loss import power, states
from tests.torture.random_histories import histories
from tests.torture.reference_state import lineage
from tests.torture.results import Line


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is such a disk: losses of power and flipped bits are made by the campaigns."""
    memory = Path("/dev/shm")  # noqa: S108  # within a folder that mkdtemp makes
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
        yield Path(root)


def held(lines: list[Line]) -> list[Line]:
    """Lines of which none tells of a violation."""
    assert [line for line in lines if line.violations] == []
    return lines


def test_no_loss_of_power_costs_what_was_acknowledged(folder: Path) -> None:
    """And the controls show that a loss is seen."""
    line, normal, lying = held(list(power(folder, 0.015)))
    assert line.count == 30
    assert normal.count == lying.count == 50


def test_a_checkpoint_that_is_not_synced_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker can fail."""
    write = snapshots.write_snapshot
    monkeypatch.setattr(follow, "write_snapshot", lambda *args, **_: write(*args, durable=False))
    assert any("snapshot" in (wrong or "") for wrong in states(folder, 1, 25))


def test_a_file_of_marks_that_is_not_synced_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker can fail: the start refuses a file that is none."""
    monkeypatch.setattr(marks, "sync_file", lambda _: None)
    assert any("refused" in (wrong or "") for wrong in states(folder, 1, 50))


def test_no_flipped_bit_goes_unnoticed(folder: Path) -> None:
    """In any kind of file."""
    assert sum(line.count for line in held(list(damage.flips(folder, 0.02)))) >= 40


def test_a_flipped_bit_that_nobody_looks_for_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker can fail: every checkpoint and snapshot has one checksum, and so has none."""

    class Blind:
        """A hash that is always the same."""

        def __init__(self, *_: object) -> None:
            self.update = self.__init__  # type: ignore[misc]

        def digest(self) -> bytes:
            """Zeros."""
            return bytes(32)

    monkeypatch.setattr(snapshots, "hashlib", SimpleNamespace(sha256=Blind))
    monkeypatch.setattr(damage, "TARGETS", [target for target in damage.TARGETS if "tensors" in target.name][:2])
    assert any(line.violations for line in damage.flips(folder, 0.1))


def test_random_histories_end_where_they_must(folder: Path) -> None:
    """Held to a plain list after every step."""
    (line,) = held(list(histories(folder, 0.05)))
    assert line.count >= 250


def test_a_rollback_that_is_not_followed_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine can fail."""
    monkeypatch.setattr(follow, "TURNS", frozenset())
    (line,) = histories(folder, 0.1)
    assert line.violations == 1


def test_every_fold_is_one_fold(folder: Path) -> None:
    """Under other settings of the libraries, from any checkpoint, and without what was forgotten."""
    lines = held(list(cut.folds(folder, 0.04)))
    assert [line.count for line in lines] == [18, 12, 12]


def test_a_checkpoint_with_another_number_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail, at the last bit of one number."""

    def write(to: Path, seq: int, fields: Any, arrays: Any, **more: Any) -> Path:
        name = min(name for name in arrays if not name.startswith("artifact."))  # a restart does not go on from those
        return snapshots.write_snapshot(to, seq, fields, {**arrays, name: np.nextafter(arrays[name], np.inf)}, **more)

    monkeypatch.setattr(cut, "write_snapshot", write)
    assert cut.cuts(folder, 0.04).violations > 0


def test_an_event_that_is_forgotten_by_the_log_alone_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: a follower that does not go back."""
    monkeypatch.setattr(follow.Follower, "_begin", lambda _: None)
    assert cut.forgets(folder, 0.04).violations > 0


def test_the_lineage_is_that_of_its_definition() -> None:
    """What the other tests are held to, by hand."""
    kinds = [(Kind.FEEDBACK, b""), (Kind.FEEDBACK, b""), (Kind.ROLLBACK, dump_seq(1)), (Kind.FEEDBACK, b"")]
    events = [Event(seq, kind, b"", 0, payload, b"") for seq, (kind, payload) in enumerate(kinds, 1)]
    assert [lineage(events, n) for n in range(5)] == [[], [1], [1, 2], [1], [1, 4]]
