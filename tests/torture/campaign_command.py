"""The command line of a set of campaigns."""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.torture.report import Page, store_results, write_page
from tests.torture.results import Campaign


def run_command(program: str, description: str, campaigns: Mapping[str, Campaign], page: Page) -> int:
    """Run the campaigns that the command line chooses, and write their page after all of them.

    Args:
        program: The command.
        description: Its description, of which --help shows the first line.
        campaigns: The campaigns by name.
        page: Where the results go.

    Returns:
        The exit code: 0 without violations, else 1.
    """
    parser = argparse.ArgumentParser(prog=program, description=description.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="share of each campaign to run, in (0, 1]")
    parser.add_argument("--only", nargs="+", choices=campaigns, default=list(campaigns), help="campaigns to run")
    parser.add_argument("--write", action="store_true", help="run nothing; write the page from stored results")
    options = parser.parse_args()
    violations = 0
    if not options.write:
        violations = sum(run_one(name, campaigns[name], page, options.share) for name in options.only)
    if options.write or len(options.only) == len(campaigns):
        write_page(page, campaigns)
    return 1 if violations else 0


def run_one(name: str, campaign: Campaign, page: Page, share: float) -> int:
    """Run one campaign, print and store its rows, and return the number of violations."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        rows = []
        for row in campaign(Path(folder), share):
            rows.append(row)
            sys.stdout.write(f"{name}: {row.fault}: {row.count}, violations: {row.violations} {row.note}\n")
            sys.stdout.flush()
    store_results(page, name, rows, share, time.monotonic() - started)
    return sum(row.violations for row in rows)
