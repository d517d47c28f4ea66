"""The longer campaign against the log: real system calls of a real process, killed or failed by strace.

    python -m tests.store.campaign FOLDER [--stride 1]

A child runs the workload of test_faults.py and tells each acknowledged event through a pipe. strace kills it where it
enters its N-th pwrite64, fdatasync, fsync or ftruncate, or lets that call fail once, for N = 1, 2, … until none is hit;
the same checker as in the tests then holds the log to what was told. Tells one line for each call and fault.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import apsw

from tests.store.test_faults import check, work

CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate")
FAULTS = ("signal=KILL", "error=EIO", "error=ENOSPC")


def tell(*words: object) -> None:
    """Write a line at once."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def child(folder: Path) -> None:
    """Run the workload through SQLite's own disk, and tell what is acknowledged."""
    work(folder, None, tell)


def struck(folder: Path, call: str, fault: str, at: int) -> bool:
    """Run one child with one fault and check what it left; return whether the fault was hit."""
    log = folder / "strace"
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={at}"]
    command += [sys.executable, "-m", __spec__.name, "--child", str(folder)]
    told: dict[str, set[int]] = {}
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    for line in ran.stdout.splitlines():
        name, seq = line.split()
        told.setdefault(name, set()).add(int(seq))
    # What the disk does is a known error, or the work goes on.
    assert ran.returncode <= 0 or ran.stderr.splitlines()[-1].startswith("service.errors."), ran.stderr
    check(folder, told)
    trace = log.read_text()
    return "INJECTED" in trace or "killed by SIGKILL" in trace


def main() -> None:
    """Run the campaign, or be its child."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if options.child:
        child(options.folder)
        return
    tell("SQLite", apsw.sqlite_lib_version())
    for call in CALLS:
        for fault in FAULTS:
            at = 1
            with tempfile.TemporaryDirectory(dir=options.folder) as root:
                while struck(Path(tempfile.mkdtemp(dir=root)), call, fault, at):
                    at += options.stride
            tell(call, fault, "points:", len(range(1, at, options.stride)), "violations: 0")


if __name__ == "__main__":
    main()
