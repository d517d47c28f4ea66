"""Writes docs/reliability.md from what the campaigns told; the prose of the page lives here.

Each campaign's results lie in build/torture/<name>.json until the page is written from all of them. What a campaign
does is said by its module's docstring.
"""

import json
import platform
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import apsw

from service.store.filesystem import MOUNTS, mount_type
from tests.torture.results import Campaign, Line

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "build" / "torture"

HEAD = """\
# Reliability

What the service promises, and how often each promise was tried. Written by `make torture`, which runs the campaigns
below against the code as it is; a part of each runs in `make test`.

## What is promised

- **What was acknowledged is kept.** A feedback or an admin call that was answered with a seq is on disk: it is there
  once, at that seq, whatever process is killed then.
- **A retry teaches once.** Sent again with its id, an event has one seq, whether or not its first try was written.
- **A failing disk is never told as a success.** After a sync that failed nothing is acknowledged until what it was to
  keep has been written again.
- **The log is the model.** Whatever was interrupted, the weights that are served in the end are the fold of the log,
  to the bit.
- **Predictions go on.** While a worker or the learner is dead, the others answer; a request whose connection died with
  a worker may be sent again.

What is not promised: a cluster. There is one log, on one machine's disk; when that machine is lost, what is left is its
backup. While the parent is dead nothing is answered until it is started again. A bit that flips in the index of ids is
found by `softstep verify` alone; until then a retry may count as a new event, or be refused.
"""

READING = """
## How to read the tables

A *case* is one fault at one place. Its count is of cases in which the fault really met a call; the target is what a
whole run has to reach. A *violation* is a case in which anything was lost, doubled, reordered or silently wrong
afterwards, or in which something broke in a way that no error of the service names.
"""


def keep(name: str, lines: Iterable[Line], share: float, seconds: float) -> None:
    """Keep what a campaign told until the page is written."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    told = {"lines": [line._asdict() for line in lines], "share": share, "seconds": round(seconds), "facts": facts()}
    (RESULTS / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")


def write(campaigns: Mapping[str, Campaign]) -> None:
    """Write the page from the results that there are."""
    found = {name: RESULTS / f"{name}.json" for name in campaigns}
    results = {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}
    PAGE.write_text(page(results, {name: told_by(campaign) for name, campaign in campaigns.items()}))


def told_by(campaign: Campaign) -> str:
    """The docstring of a campaign's module."""
    return (sys.modules[campaign.__module__].__doc__ or "").strip()


def page(results: Mapping[str, Any], does: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        results: What each campaign told.
        does: What each campaign does.
    """
    violations = sum(line["violations"] for told in results.values() for line in told["lines"])
    parts = [HEAD, f"\n**Violations in all that follows: {violations}.**\n", READING]
    for name, told in results.items():
        parts.append(f"\n## {name.capitalize()}\n\n{does[name]}\n\n{table(told)}")
    return "".join([*parts, "\n## Run on\n\n", *(f"- {line}\n" for line in run_on(results))])


def table(told: Mapping[str, Any]) -> str:
    """One campaign's lines, and how much of it was run."""
    share = f"A share of {told['share']:g} of the campaign. " if told["share"] < 1 else ""
    rows = "".join(row(Line(**line)) for line in told["lines"])
    head = "| fault | cases | target | violations | |\n|---|---:|---:|---:|---|\n"
    return f"{head}{rows}\n{share}It took {told['seconds'] / 60:.1f} minutes.\n"


def row(line: Line) -> str:
    """One line of a table."""
    note = line.note.replace("|", "\\|").replace("\n", " ")
    return f"| {line.fault} | {line.count:,} | {line.target:,} | {line.violations} | {note} |\n"


def run_on(results: Mapping[str, Any]) -> list[str]:
    """The facts of the runs; those that are of several runs once each."""
    seen: dict[str, None] = {}
    for told in results.values():
        seen.update(dict.fromkeys(told["facts"]))
    return list(seen)


def facts() -> list[str]:
    """What a reader needs to judge the numbers: no name and no path of the machine."""
    cores = len(re.findall(r"^processor\s*:", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    place = "a kill loses nothing of what the system has taken, and strace fails calls before any disk is asked"
    disk = mount_type(MOUNTS.read_text(), Path("/tmp"))  # noqa: S108  # where whole services keep their data
    return [
        f"{time.strftime('%Y-%m-%d')}",
        f"Linux {platform.release()} on {platform.machine()}, {cores} cores",
        f"kills, moves and disks on tmpfs where there is one ({place}), all others on {disk}",
        f"SQLite {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()}), Python {platform.python_version()}",
    ]
