"""Send SIGTERM to a service at many moments after its start, and take the time and the exit code (figure C3).

    python loadtest/signals.py [--step 20] [--until 3000] [--write]

Each moment has a start of its own: once as a plain command, and once as the image starts it, with tini as the first
process of a PID namespace (this needs root, or user namespaces). The kernel drops SIGTERM to the first process of a
namespace until that process asks for it. So with tini the time begins when tini has done so, a moment after its exec.
The drain is 0 s, so that the time to exit is comparable before and after readiness.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from checkout_service import CheckoutService
from environments import ROOT
from machine import describe
from operations import read_options, report, row
from processes import free_port, has_ended

SECONDS_MAX = 1.0
# The interpreter has to start before it can handle a signal; without tini the signal itself ends it until then.
BARE_SECONDS = 0.1
TERMINATED = 128 + signal.SIGTERM
TINI = ("tini", "-e", str(TERMINATED), "--")
NAMESPACE = ("unshare", "--fork", "--pid", "--kill-child")
WAIT_SECONDS = 20.0
POLL_SECONDS = 0.0005
ABOUT = (
    "Times after `exec`, or after tini takes signals. A drain of 0 s; one worker, learning on, an empty data "
    "directory, compiled kernels."
)


class Exit(NamedTuple):
    """The end of one service: when SIGTERM was sent, how long it took to exit, and its exit code as of a shell."""

    moment: float
    seconds: float
    code: int

    def is_allowed(self, *, bare: bool) -> bool:
        """Return whether the exit is as documented."""
        early = bare and self.moment < BARE_SECONDS and self.code == TERMINATED
        return self.seconds <= SECONDS_MAX and (self.code == 0 or early)


def terminate_at(moment: float, folder: Path, *, bare: bool) -> Exit:
    """Start a service and send it SIGTERM some seconds after its exec."""
    service = CheckoutService(free_port(), folder, {"drain_seconds": 0})
    command = service.command if bare else [*NAMESPACE, *TINI, *service.command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=service.variables(), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            target = process.pid if bare else init_of(process)
            time.sleep(moment)
            sent = time.monotonic()
            os.kill(target, signal.SIGTERM)
            while not has_ended(process) and time.monotonic() < sent + WAIT_SECONDS:
                time.sleep(POLL_SECONDS)
            seconds = time.monotonic() - sent
        finally:
            if not has_ended(process):
                process.kill()
            code = process.wait()
    return Exit(moment, seconds, code if code >= 0 else 128 - code)


def children_of(process: int) -> list[int]:
    """Return the ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def init_of(process: "subprocess.Popen[bytes]") -> int:
    """Wait until tini takes signals as the first process of the namespace; return its process id out here."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end and process.poll() is None:
        for child in children_of(process.pid):
            # tini takes signals before it starts the service.
            if Path(f"/proc/{child}/comm").read_text() == "tini\n" and children_of(child):
                return child
    raise SystemExit("tini cannot be started in a PID namespace; run this as root")


def terminate_at_all(moments: Sequence[float], scratch: Path, *, bare: bool) -> list[Exit]:
    """Start and terminate a service once for each moment."""
    exits = []
    for number, moment in enumerate(moments):
        folder = scratch / f"{'bare' if bare else 'tini'}-{number}"
        exits.append(terminate_at(moment, folder, bare=bare))
        shutil.rmtree(folder)
    return exits


def show(name: str, exits: list[Exit], *, bare: bool) -> list[list[str]]:
    """Return the rows of the page for one way of starting."""
    wrong = [end for end in exits if not end.is_allowed(bare=bare)]
    for end in wrong:
        print(f"{name}: SIGTERM at {1000 * end.moment:.0f} ms, exit after {end.seconds:.2f} s with {end.code}")
    slowest = max(end.seconds for end in exits)
    early = f" ({sum(end.code == TERMINATED for end in exits)} with {TERMINATED} in the first 100 ms)" if bare else ""
    target = "all" + (f"; {TERMINATED} only in the first 100 ms" if bare else "")
    value = f"{len(exits) - len(wrong)} of {len(exits)}{early}"
    return [
        row(f"moments at which SIGTERM ends it within 1 s with exit code 0, {name}", target, value, met=not wrong),
        row(f"slowest exit, {name}", f"≤ {SECONDS_MAX:g} s", f"{slowest:.2f} s", met=slowest <= SECONDS_MAX),
    ]


def main() -> None:
    """Measure and print."""
    options = read_options(
        __doc__, step=(20, "milliseconds between two moments"), until=(3000, "milliseconds of the last moment")
    )
    for tool in (TINI[0], NAMESPACE[0]):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not on the path; install your system's package of that name")
    machine = describe()
    moments = [moment / 1000 for moment in range(0, options.until + 1, options.step)]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for title, bare in (("plain command", True), ("through tini", False)):
            rows += show(title, terminate_at_all(moments, Path(name), bare=bare), bare=bare)
    report("signals", ABOUT, rows, machine, write=options.write)


if __name__ == "__main__":
    main()
