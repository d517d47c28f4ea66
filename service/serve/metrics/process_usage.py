"""Read the resources of each process from /proc; without /proc, as on macOS, nothing is known."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from service.process.shared_memory import PID, SharedMemory

PROC: Final = Path("/proc")
# Fields of /proc/<pid>/stat after the name of the program, which may contain spaces: see proc(5).
USER_TICKS, SYSTEM_TICKS, START_TICKS, RESIDENT_PAGES = 11, 12, 19, 21


class ProcessUsage(NamedTuple):
    """The resources of one process.

    Attributes:
        name: "parent", "worker-<slot>" or "learner".
        resident_bytes: Resident memory; pages that processes share count in each of them.
        cpu_seconds: Processor time, in user and system mode.
        start_seconds: When the process started, in seconds since 1970; None if unknown.
        open_files: Open file descriptors, sockets among them; None if they are not readable.
        files_max: The soft limit of open file descriptors; None if there is none, or if it is not readable.
    """

    name: str
    resident_bytes: int
    cpu_seconds: float
    start_seconds: float | None
    open_files: int | None
    files_max: int | None


def slot_name(memory: SharedMemory, slot: int) -> str:
    """Return the name of the process in a slot of the shared memory."""
    return f"worker-{slot}" if slot < memory.workers else "learner"


def read_processes(memory: SharedMemory) -> Iterator[ProcessUsage]:
    """Yield the resources of the parent and of each running child; only a worker may call this."""
    processes = {"parent": os.getppid()}
    for slot in range(memory.slots):
        processes[slot_name(memory, slot)] = memory.cells[memory.slot(slot) + PID]
    boot = _boot_seconds()
    for name, process in processes.items():
        if process:
            try:
                yield _read_process(name, PROC / str(process), boot)
            except OSError:  # it has just exited
                continue


def _read_process(name: str, folder: Path, boot: int | None) -> ProcessUsage:
    fields = (folder / "stat").read_text().rpartition(") ")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return ProcessUsage(
        name,
        int(fields[RESIDENT_PAGES]) * os.sysconf("SC_PAGE_SIZE"),
        (int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])) / ticks,
        None if boot is None else boot + int(fields[START_TICKS]) / ticks,
        *_open_files(folder),
    )


def _open_files(folder: Path) -> tuple[int | None, int | None]:
    """Return the number of open file descriptors and its soft limit."""
    try:
        count = sum(1 for _ in (folder / "fd").iterdir())
        limits = (folder / "limits").read_text().splitlines()
    except OSError:  # another user owns the process, or the sandbox has no such file
        return None, None
    soft = next((line.split()[3] for line in limits if line.startswith("Max open files")), "unlimited")
    return count, int(soft) if soft.isdecimal() else None


def _boot_seconds() -> int | None:
    """Return when the machine started, in seconds since 1970; None if unknown."""
    try:
        lines = (PROC / "stat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("btime ")), None)
