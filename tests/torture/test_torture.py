"""Small shares of the campaigns on processes and disks, and proofs that their checkers can fail."""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from service.store.directory import log_opening
from service.store.log.events import Draft, EventLocation, Outcome, Position, Stream
from service.store.log.log_connection import LogConnection
from service.store.log.sqlite import SqliteLog
from service.store.states import bases
from tests.torture import disk_errors, mixed_load, process_kills, report, restores_and_purges, sparse_bases
from tests.torture.disk_errors import acks_after_failed_sync
from tests.torture.fault_injection import STRACE, Injection
from tests.torture.load_clients import LoadState
from tests.torture.results import ResultRow
from tests.torture.sweeps import Sweep, run_sweeps

needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


def sample(sweeps: Iterator[Sweep], each: int) -> list[Sweep]:
    """Return some sweeps of each name, each reduced to one random case."""
    rng, by_name = random.Random(1), {}
    for sweep in sweeps:
        by_name.setdefault(sweep.name, []).append(sweep)
    chosen = [sweep for found in by_name.values() for sweep in rng.sample(found, min(each, len(found)))]
    return [sweep._replace(start=at, last=at) for sweep in chosen for at in [rng.randint(1, 9)]]


@needs_strace
@pytest.mark.parametrize(
    ("sweeps", "each"),
    [(process_kills.sweeps, 4), (restores_and_purges.sweeps, 6), (disk_errors.sweeps, 2), (sparse_bases.sweeps, 2)],
    ids=["kills", "restores", "disks", "bases"],
)
def test_killed_processes_and_failing_disks_lose_nothing(
    tmp_path: Path, sweeps: Callable[[float], Iterator[Sweep]], each: int
) -> None:
    """Faults at calls all over the workloads lose, duplicate or change nothing that was acknowledged."""
    counts = run_sweeps(tmp_path, sample(sweeps(1.0), each), 1)
    assert sum(count.cases for count in counts.values()) >= 3
    assert [text for count in counts.values() for text in count.violations] == []


def test_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    """A service whose processes are killed under requests of all kinds loses nothing that was acknowledged."""
    rows = list(mixed_load.run_campaign(tmp_path, 0.006))
    assert [row for row in rows if row.violations or not row.count] == []


class EarlyAcknowledgingLog(SqliteLog):
    """A log that acknowledges before its commit: it writes each batch together with the next one."""

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        delayed: list[Draft] = getattr(self, "delayed", [])
        if delayed:
            super().append(delayed)
        self.delayed = list(drafts)
        first = self.stream_state(drafts[0].stream).seq + 1
        known = self.find_ids("iris", [draft.id for draft in drafts])
        fresh = dict.fromkeys(draft.id for draft in drafts if draft.id not in known)
        places = {id_: EventLocation(drafts[0].stream, seq) for seq, id_ in enumerate(fresh, first)}
        return [places.get(draft.id) or known[draft.id] for draft in drafts]


class ErrorIgnoringLog(SqliteLog):
    """A log that acknowledges although its disk has failed."""

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        try:
            return super().append(drafts)
        except Exception:  # noqa: BLE001  # ignoring every error is its purpose
            return [EventLocation(draft.stream, 1) for draft in drafts]

    def position_after_append(self, stream: int) -> tuple[Stream, Position]:
        (known,) = [one for one in self.list_streams() if one.number == stream]
        return known, Position(*self.stream_state(stream)[:2])


def violations_of(tmp_path: Path, sweep: Sweep) -> tuple[str, ...]:
    """Run a sweep and return what the checker found."""
    return run_sweeps(tmp_path, [sweep], 1)[sweep.name].violations


@needs_strace
@pytest.mark.parametrize(
    ("log", "fault"),
    [(EarlyAcknowledgingLog, "signal=KILL"), (ErrorIgnoringLog, "error=EIO")],
    ids=["early", "ignoring"],
)
def test_the_checker_detects_a_log_that_acknowledges_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: type[SqliteLog], fault: str
) -> None:
    """The checker fails for a log that acknowledges before its commit, or although its disk has failed."""
    monkeypatch.setattr(log_opening, "SqliteLog", log)
    case = partial(process_kills.append_case, 0, fault, "pwrite64")
    found = violations_of(tmp_path, Sweep("faulty", "pwrite64", case, 30, 6, 60))
    assert len(found) > 2
    assert all("acknowledged events differ" in text for text in found)


@needs_strace
def test_the_checker_detects_data_lost_by_a_failed_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker fails for a log that acknowledges a retry without writing the data of a failed sync again.

    Only the private method writes it again, so the test replaces that.
    """
    monkeypatch.setattr(LogConnection, "_move_wal", lambda *_: None)
    case = partial(disk_errors.append_case, 0, Injection("fdatasync", "error=EIO", 1))
    found = violations_of(tmp_path, Sweep("faulty", "fdatasync", case, 4, 2, 12))
    assert len([text for text in found if "acknowledged after a failed sync" in text]) > 1


@needs_strace
def test_the_checker_detects_bases_that_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker fails if bases that no snapshot names stay."""
    monkeypatch.setattr("service.learn.sparse_bases.delete_bases", lambda folder, *_: bases.list_bases(folder))
    case = partial(sparse_bases.learn_case, 0, Injection("rename", "signal=KILL", 1))
    found = violations_of(tmp_path, Sweep("faulty", "rename", case, 5, 5, 10))
    assert found
    assert all("other bases are left" in text for text in found)


WAL = "/data/log.sqlite-wal"
FAILED = f"7 fdatasync(9<{WAL}>) = -1 EIO (Input/output error) (INJECTED)\n"
WRITTEN, SYNCED = f'7 pwrite64(9<{WAL}>, "…", 4, 0) = 4\n', f"7 fdatasync(9<{WAL}>) = 0\n"
TRUNCATED = f"7 ftruncate(9<{WAL}>, 0) = 0\n"
ACKNOWLEDGED = '8 sendto(4<socket:[1]>, "ack a0-0 1\\n", 11, 0, NULL, 0) = 11\n'


@pytest.mark.parametrize(
    ("trace", "count"),
    [
        (SYNCED + ACKNOWLEDGED, 0),
        (FAILED + ACKNOWLEDGED, 1),
        (FAILED + SYNCED + ACKNOWLEDGED, 1),
        (FAILED + WRITTEN + ACKNOWLEDGED, 1),
        (FAILED + WRITTEN + SYNCED + ACKNOWLEDGED + ACKNOWLEDGED, 0),
        (FAILED + TRUNCATED + ACKNOWLEDGED, 0),
        (FAILED.replace(")", " <unfinished ...>\n8 close(1) = 0\n7 <... fdatasync resumed>)", 1) + ACKNOWLEDGED, 1),
    ],
)  # fmt: skip
def test_an_acknowledgement_after_a_failed_sync_is_detected(trace: str, count: int) -> None:
    """A later sync alone does not make data of a failed sync safe; a write and a sync do, or a truncation."""
    assert len(acks_after_failed_sync(trace)) == count


def test_lost_and_moved_events_are_detected() -> None:
    """Events that are missing, or that were acknowledged at two seqs, are violations of the load campaign."""
    load = LoadState(0, acknowledged={"a": {1}, "b": {3}, "c": {2, 4}})
    assert len(mixed_load.find_lost_events([], load)) == 3


def test_the_page_shows_every_row_and_description() -> None:
    """The page holds count, target, violations and note of each row, and the description of each campaign."""
    rows = [ResultRow("a fault", 1200, 1000, 2, "a | note")._asdict()]
    result = {"rows": rows, "share": 0.5, "seconds": 90, "facts": report.facts()}
    description = report.description(process_kills.run_campaign)
    page = report.make_page(report.RELIABILITY, {"kills": result}, {"kills": description})
    assert "| a fault | 1,200 | 1,000 | 2 | a \\| note |" in page
    assert "Violations in all campaigns: 2." in page
    assert description in page
    assert "A share of 0.5" in page
