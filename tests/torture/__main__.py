"""Runs the campaigns that docs/reliability.md tells of, and writes it.

    python -m tests.torture                          everything, and then the page
    python -m tests.torture --only kills disks       these alone
    python -m tests.torture --share 0.1              a tenth of each
    python -m tests.torture --write                  the page, from the results that there are

What came of each campaign is kept in build/torture, so that they can run one at a time.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.torture import report
from tests.torture.bit_flips import flips
from tests.torture.disk_errors import disks
from tests.torture.fold_determinism import folds
from tests.torture.mixed_load import mixed
from tests.torture.power_loss import power
from tests.torture.process_kills import kills
from tests.torture.random_histories import histories
from tests.torture.restores_and_purges import moves
from tests.torture.results import Campaign

CAMPAIGNS: dict[str, Campaign] = {
    "kills": kills,
    "moves": moves,
    "disks": disks,
    "power": power,
    "flips": flips,
    "histories": histories,
    "folds": folds,
    "mixed": mixed,
}


def main() -> int:
    """0 where nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="how much of each campaign is run, in (0, 1]")
    parser.add_argument("--only", nargs="+", choices=CAMPAIGNS, default=list(CAMPAIGNS), help="the campaigns to run")
    parser.add_argument("--write", action="store_true", help="run nothing, and write the page")
    options = parser.parse_args()
    violations = 0
    if not options.write:
        violations = sum(run(name, options.share) for name in options.only)
    if options.write or len(options.only) == len(CAMPAIGNS):
        report.write(CAMPAIGNS)
    return 1 if violations else 0


def run(name: str, share: float) -> int:
    """Run one campaign, tell its lines, and keep them; returns the number of violations."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        lines = []
        for line in CAMPAIGNS[name](Path(folder), share):
            lines.append(line)
            sys.stdout.write(f"{name}: {line.fault}: {line.count}, violations: {line.violations} {line.note}\n")
            sys.stdout.flush()
    report.keep(name, lines, share, time.monotonic() - began)
    return sum(line.violations for line in lines)


if __name__ == "__main__":
    sys.exit(main())
