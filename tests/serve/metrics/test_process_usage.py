"""The resources of processes are read from /proc, also where parts of it are missing."""

import os
from pathlib import Path

import pytest

from service.process.shared_memory import PID, SharedMemory
from service.serve.metrics import process_usage
from service.serve.metrics.process_usage import ProcessUsage, read_processes

PARENT, WORKER = 70, 71
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedMemory:
    """The memory of a service with one worker and no learner; /proc is a folder of the test's own."""
    monkeypatch.setattr(process_usage, "PROC", tmp_path)
    monkeypatch.setattr(os, "getppid", lambda: PARENT)
    memory = SharedMemory(1, 1)
    memory.cells[memory.slot(0) + PID] = WORKER
    return memory


def add_process(proc: Path, process: int) -> Path:
    """Add a process that has used three seconds, whose name looks like the end of a name."""
    folder = proc / str(process)
    folder.mkdir()
    fields = ["S", *["0"] * 10, str(TICKS), str(2 * TICKS), *["0"] * 6, str(5 * TICKS), "0", "7", "0"]
    (folder / "stat").write_text(f"{process} (a) b) {' '.join(fields)}\n")
    return folder


def test_processes_are_read(memory: SharedMemory, tmp_path: Path) -> None:
    """Memory, processor time, start and open files are those of /proc; a slot without a process is left out."""
    (tmp_path / "stat").write_text("cpu 1 2\nbtime 1000\n")
    for process in (PARENT, WORKER):
        folder = add_process(tmp_path, process)
        (folder / "fd").mkdir()
        (folder / "fd" / "0").touch()
        (folder / "limits").write_text("Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n")
    expected = [ProcessUsage(name, 7 * PAGE, 3.0, 1005.0, 1, 1024) for name in ("parent", "worker-0")]
    assert list(read_processes(memory)) == expected


def test_missing_parts_of_proc_are_left_out(memory: SharedMemory, tmp_path: Path) -> None:
    """A process that has exited is left out; without limits or the start of the machine, those numbers are unknown."""
    add_process(tmp_path, PARENT)
    assert list(read_processes(memory)) == [ProcessUsage("parent", 7 * PAGE, 3.0, None, None, None)]
    (tmp_path / str(PARENT) / "fd").mkdir()
    (tmp_path / str(PARENT) / "limits").write_text("Max open files  unlimited  unlimited  files\n")
    (tmp_path / "stat").write_text("cpu 1 2\n")
    assert list(read_processes(memory)) == [ProcessUsage("parent", 7 * PAGE, 3.0, None, 0, None)]


def test_without_proc_nothing_is_known(memory: SharedMemory, tmp_path: Path) -> None:
    """On a system without /proc there are no samples, and no error."""
    tmp_path.rmdir()
    assert list(read_processes(memory)) == []
