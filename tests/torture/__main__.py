"""Run the fault-injection campaigns and write docs/reliability.md from their results.

    python -m tests.torture                          run every campaign, then write the page
    python -m tests.torture --only kills disks       run these campaigns
    python -m tests.torture --share 0.1              run a tenth of each
    python -m tests.torture --write                  write the page from stored results

Results are stored in build/torture, one file per campaign, so that campaigns can run separately.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.torture import (
    bit_flips,
    disk_errors,
    fold_determinism,
    hostile_input,
    mixed_load,
    power_loss,
    process_kills,
    random_histories,
    report,
    restores_and_purges,
    sparse_bases,
)
from tests.torture.results import Campaign

CAMPAIGNS: dict[str, Campaign] = {
    "kills": process_kills.run_campaign,
    "restores": restores_and_purges.run_campaign,
    "disks": disk_errors.run_campaign,
    "bases": sparse_bases.run_campaign,
    "power": power_loss.run_campaign,
    "flips": bit_flips.run_campaign,
    "histories": random_histories.run_campaign,
    "folds": fold_determinism.run_campaign,
    "load": mixed_load.run_campaign,
    "fuzzers": hostile_input.run_campaign,
}


def main() -> int:
    """Run the chosen campaigns.

    Returns:
        The exit code: 0 without violations, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="share of each campaign to run, in (0, 1]")
    parser.add_argument("--only", nargs="+", choices=CAMPAIGNS, default=list(CAMPAIGNS), help="campaigns to run")
    parser.add_argument("--write", action="store_true", help="run nothing; write the page from stored results")
    options = parser.parse_args()
    violations = 0
    if not options.write:
        violations = sum(run(name, options.share) for name in options.only)
    if options.write or len(options.only) == len(CAMPAIGNS):
        report.write_page(CAMPAIGNS)
    return 1 if violations else 0


def run(name: str, share: float) -> int:
    """Run one campaign, print and store its rows, and return the number of violations."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        rows = []
        for row in CAMPAIGNS[name](Path(folder), share):
            rows.append(row)
            sys.stdout.write(f"{name}: {row.fault}: {row.count}, violations: {row.violations} {row.note}\n")
            sys.stdout.flush()
    report.store_results(name, rows, share, time.monotonic() - started)
    return sum(row.violations for row in rows)


if __name__ == "__main__":
    sys.exit(main())
