"""Small shares of the campaigns on disk states, histories and folds, and proofs that their checkers can fail."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.learn import follow
from service.store.directory import ack_marks
from service.store.log.admin_payloads import dump_seq
from service.store.log.events import Event, Kind
from service.store.states import snapshots
from tests.torture import bit_flips, fold_determinism, power_loss, random_histories
from tests.torture.reference_state import lineage
from tests.torture.results import ResultRow


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder in memory if there is such a disk; the campaigns here simulate every fault themselves."""
    memory = Path("/dev/shm")  # noqa: S108  # within a folder that mkdtemp makes
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
        yield Path(root)


def without_violations(rows: Iterator[ResultRow]) -> list[ResultRow]:
    """Run a campaign and check that no row has violations."""
    found = list(rows)
    assert [row for row in found if row.violations] == []
    return found


def test_no_loss_of_power_loses_acknowledged_events(folder: Path) -> None:
    """A loss of power loses nothing acknowledged, and the controls show that the checker sees losses."""
    row, normal, lying = without_violations(power_loss.run_campaign(folder, 0.015))
    assert row.count == 30
    assert normal.count == lying.count == 50


def test_an_unsynced_checkpoint_is_detected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker fails if checkpoints are not synced."""
    write = snapshots.write_snapshot
    monkeypatch.setattr(follow, "write_snapshot", lambda *args, **_: write(*args, durable=False))
    assert any("snapshot" in (violation or "") for violation in power_loss.lose_power(folder, 1, 25))


def test_an_unsynced_marks_file_is_detected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker fails if marks files are not synced: the start refuses a file without a head."""
    write = ack_marks.write_whole_file
    monkeypatch.setattr(ack_marks, "write_whole_file", lambda *args, **_: write(*args, durable=False))
    assert any("refused" in (violation or "") for violation in power_loss.lose_power(folder, 1, 50))


def test_every_flipped_bit_is_detected_or_harmless(folder: Path) -> None:
    """A flipped bit in any kind of file is reported or changes nothing."""
    assert sum(row.count for row in without_violations(bit_flips.run_campaign(folder, 0.02))) >= 40


def test_an_undetected_flip_is_a_violation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker fails if the checksums of checkpoints and snapshots are constant."""

    class ConstantHash:
        """A hash that is always zero."""

        def __init__(self, *_: object) -> None:
            self.update = self.__init__  # type: ignore[misc]

        def digest(self) -> bytes:
            """Return zeros."""
            return bytes(32)

    monkeypatch.setattr(snapshots, "hashlib", SimpleNamespace(sha256=ConstantHash))
    targets = [target for target in bit_flips.TARGETS if "tensors" in target.name][:2]
    monkeypatch.setattr(bit_flips, "TARGETS", targets)
    assert any(row.violations for row in bit_flips.run_campaign(folder, 0.1))


def test_random_histories_match_the_reference(folder: Path) -> None:
    """Every step of a random history leaves the log, the fold and the snapshot that the reference expects."""
    (row,) = without_violations(random_histories.run_campaign(folder, 0.05))
    assert row.count >= 250


def test_an_ignored_rollback_is_detected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine fails if the follower ignores rollbacks."""
    monkeypatch.setattr(follow, "REVISIONS", frozenset())
    (row,) = random_histories.run_campaign(folder, 0.1)
    assert row.violations == 1


def test_an_ignored_correction_is_detected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine fails if the follower keeps the labels that events were posted with."""
    monkeypatch.setattr(follow, "correct_payload", lambda payload, _: payload)
    (row,) = random_histories.run_campaign(folder, 0.1)
    assert row.violations == 1


def test_every_fold_is_the_same_fold(folder: Path) -> None:
    """Folds agree under other library settings, from any checkpoint, and without forgotten events."""
    rows = without_violations(fold_determinism.run_campaign(folder, 0.05))
    assert [row.count for row in rows] == [27, 22, 22]


def test_a_checkpoint_with_another_number_is_detected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison fails if one number of a checkpoint differs in its last bit."""

    def write(to: Path, seq: int, fields: Any, arrays: Any, **more: Any) -> Path:
        # A restart does not read an artifact, and a number of a column has no last bit.
        name = min(name for name in arrays if not name.startswith("artifact.") and arrays[name].dtype.kind == "f")
        return snapshots.write_snapshot(to, seq, fields, {**arrays, name: np.nextafter(arrays[name], np.inf)}, **more)

    monkeypatch.setattr(fold_determinism, "write_snapshot", write)
    assert fold_determinism.compare_checkpoints(folder, 0.04).violations > 0


def test_a_follower_that_keeps_forgotten_events_is_detected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison fails if the follower does not go back; only its private method begins that."""
    monkeypatch.setattr(follow.Follower, "_refold_timeline", lambda _: None)
    assert fold_determinism.compare_forgets(folder, 0.04).violations > 0


def test_the_reference_lineage_follows_its_definition() -> None:
    """The lineage after a rollback consists of the events before its target, and of those that follow it."""
    kinds = [(Kind.FEEDBACK, b""), (Kind.FEEDBACK, b""), (Kind.ROLLBACK, dump_seq(1)), (Kind.FEEDBACK, b"")]
    events = [Event(seq, kind, b"", 0, payload, b"") for seq, (kind, payload) in enumerate(kinds, 1)]
    assert [lineage(events, n) for n in range(5)] == [[], [1], [1, 2], [1], [1, 4]]
