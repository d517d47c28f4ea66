"""A small part of each campaign, and proofs that their checkers see what they look for."""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from service.serve.log import worker_log as ledger
from service.store.log.events import Draft, EventLocation, Outcome, Position, Stream
from service.store.log.log_connection import LogConnection
from service.store.log.sqlite import SqliteLog
from tests.torture import disk_errors, mixed_load, process_kills, report, restores_and_purges
from tests.torture.disk_errors import unkept
from tests.torture.fault_injection import STRACE, Strike
from tests.torture.load_clients import Weather
from tests.torture.results import Line
from tests.torture.sweeps import Sweep, scratch, swept

needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


def sample(sweeps: Iterator[Sweep], each: int) -> list[Sweep]:
    """Of each name some sweeps, and of each of those one case somewhere."""
    chance, names = random.Random(1), {}
    for sweep in sweeps:
        names.setdefault(sweep.name, []).append(sweep)
    chosen = [sweep for found in names.values() for sweep in chance.sample(found, min(each, len(found)))]
    return [sweep._replace(start=at, last=at) for sweep in chosen for at in [chance.randint(1, 9)]]


@needs_strace
@pytest.mark.parametrize(
    ("sweeps", "each"),
    [(process_kills.sweeps, 4), (restores_and_purges.sweeps, 6), (disk_errors.sweeps, 2)],
    ids=["kills", "moves", "disks"],
)
def test_nothing_is_lost_where_processes_are_killed_and_disks_fail(
    tmp_path: Path, sweeps: Callable[[float], Iterator[Sweep]], each: int
) -> None:
    """Calls all over the workloads are struck, and nothing that was acknowledged is lost, doubled or wrong."""
    place = scratch(tmp_path)
    counts = swept(place, sample(sweeps(1.0), each), 1)
    shutil.rmtree(place)
    assert sum(count.cases for count in counts.values()) >= 3
    assert [text for count in counts.values() for text in count.violations] == []


def test_nothing_is_lost_under_load(tmp_path: Path) -> None:
    """A service loses some of its processes under requests of all kinds."""
    lines = list(mixed_load.mixed(tmp_path, 0.006))
    assert [line for line in lines if line.violations or not line.count] == []


class Hasty(SqliteLog):
    """A log that acknowledges before its commit: what it is given is written with what comes next."""

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        late: list[Draft] = getattr(self, "late", [])
        if late:
            super().append(late)
        self.late = list(drafts)
        first = self.stream_state(drafts[0].stream).seq + 1
        known = self.find_ids("iris", [draft.id for draft in drafts])
        fresh = dict.fromkeys(draft.id for draft in drafts if draft.id not in known)
        places = {id_: EventLocation(drafts[0].stream, seq) for seq, id_ in enumerate(fresh, first)}
        return [places.get(draft.id) or known[draft.id] for draft in drafts]


class Deaf(SqliteLog):
    """A log that acknowledges though its disk has failed."""

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        try:
            return super().append(drafts)
        except Exception:  # noqa: BLE001  # that is what it is for
            return [EventLocation(draft.stream, 1) for draft in drafts]

    def position_after_append(self, stream: int) -> tuple[Stream, Position]:
        (known,) = [one for one in self.list_streams() if one.number == stream]
        return known, Position(*self.stream_state(stream)[:2])


def caught(tmp_path: Path, sweep: Sweep) -> tuple[str, ...]:
    """What the checker found wrong in some cases."""
    place = scratch(tmp_path)
    counts = swept(place, [sweep], 1)
    shutil.rmtree(place)
    return counts[sweep.name].violations


@needs_strace
@pytest.mark.parametrize(("log", "fault"), [(Hasty, "signal=KILL"), (Deaf, "error=EIO")])
def test_the_checker_sees_a_log_that_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: type[SqliteLog], fault: str
) -> None:
    """Acknowledged before the commit, or in spite of the disk: neither goes unseen."""
    monkeypatch.setattr(ledger, "SqliteLog", log)
    case = partial(process_kills.append_case, 0, fault, "pwrite64")
    found = caught(tmp_path, Sweep("lie", "pwrite64", case, 30, 6, 60))
    assert len(found) > 2
    assert all("acknowledged and not there as told" in text for text in found)


@needs_strace
def test_the_checker_sees_a_sync_that_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is opened again, and does not write anew what a failed sync was to keep, is found out at the retry."""
    monkeypatch.setattr(LogConnection, "_move_wal", lambda *_: None)
    case = partial(disk_errors.append_case, 0, Strike("fdatasync", "error=EIO", 1))
    found = caught(tmp_path, Sweep("lie", "fdatasync", case, 4, 2, 12))
    assert len([text for text in found if "acknowledged after a sync that failed" in text]) > 1


WAL = "/data/log.sqlite-wal"
FAILED = f"7 fdatasync(9<{WAL}>) = -1 EIO (Input/output error) (INJECTED)\n"
WRITTEN, SYNCED = f'7 pwrite64(9<{WAL}>, "…", 4, 0) = 4\n', f"7 fdatasync(9<{WAL}>) = 0\n"
CUT = f"7 ftruncate(9<{WAL}>, 0) = 0\n"
ACKED = '8 sendto(4<socket:[1]>, "ack a0-0 1\\n", 11, 0, NULL, 0) = 11\n'


@pytest.mark.parametrize(
    ("trace", "wrong"),
    [
        (SYNCED + ACKED, 0),
        (FAILED + ACKED, 1),
        (FAILED + SYNCED + ACKED, 1),
        (FAILED + WRITTEN + ACKED, 1),
        (FAILED + WRITTEN + SYNCED + ACKED + ACKED, 0),
        (FAILED + CUT + ACKED, 0),
        (FAILED.replace(")", " <unfinished ...>\n8 close(1) = 0\n7 <... fdatasync resumed>)", 1) + ACKED, 1),
    ],
)  # fmt: skip
def test_an_acknowledgement_after_a_failed_sync_is_seen(trace: str, wrong: int) -> None:
    """A sync that comes after a failed one proves nothing; what is written again does."""
    assert len(unkept(trace)) == wrong


def test_the_load_sees_what_is_lost_and_doubled() -> None:
    """Of events that are missing, elsewhere, or there twice."""
    weather = Weather(0, acked={"a": {1}, "b": {3}, "c": {2, 4}})
    assert len(mixed_load._lost([], weather)) == 3


def test_the_page_has_every_line_and_no_machine() -> None:
    """Counts, targets, violations and notes of each campaign, and what it does."""
    lines = [Line("a fault", 1200, 1000, 2, "a | note")._asdict()]
    told = {"lines": lines, "share": 0.5, "seconds": 90, "facts": report.facts()}
    page = report.page({"kills": told}, {"kills": report.told_by(process_kills.kills)})
    assert "| a fault | 1,200 | 1,000 | 2 | a \\| note |" in page
    assert "Violations in all that follows: 2." in page
    assert report.told_by(process_kills.kills) in page
    assert "A share of 0.5" in page
