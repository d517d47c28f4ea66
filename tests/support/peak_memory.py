"""The largest memory of this process; that of getrusage counts the memory of the process that started it too."""

from pathlib import Path


def peak_memory() -> int:
    """Return the most memory in bytes that this process has had since it began or was forked."""
    status = Path("/proc/self/status").read_text("ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
