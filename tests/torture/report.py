"""Write a page from the results of campaigns, such as docs/reliability.md.

Results are stored in build/, in <name>.json for each campaign, until the page is written from all of them. The
docstring of a campaign's module describes the campaign on the page.
"""

import json
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from service.store.mount_types import MOUNTS, mount_type
from tests.torture.results import Campaign, ResultRow

ROOT = Path(__file__).parent.parent.parent


class Page(NamedTuple):
    """A page that is written from results.

    Attributes:
        path: The page.
        results: The folder where results are stored until the page is written.
        head: Its beginning: the promises that the campaigns test.
        facts: Returns what a reader needs to judge the numbers: no name and no path of the machine.
    """

    path: Path
    results: Path
    head: str
    facts: Callable[[], list[str]]


HEAD = """\
# Reliability

What the service promises, and how often each promise was tested. `make torture` runs the campaigns below against the
current code and writes this page; `make test` runs a part of each.

## Promises

- **Acknowledged events are kept.** A feedback or admin call that was answered with a seq is on disk. The event is there
  once, at that seq, whichever process is killed afterwards.
- **A retry has no second effect.** An event that is sent again with its id has one seq, whether or not the first try
  was written.
- **A failing disk is never reported as success.** After a failed sync nothing is acknowledged until the data of that
  sync has been written again.
- **The log determines the model.** After any interruption, the weights that are served in the end are the fold of the
  log, to the bit.
- **Predictions continue.** While a worker or the learner is dead, the other workers answer. A request whose connection
  broke with a worker is safe to send again.

These are the promises of a log in SQLite, on the disk of one machine; if that machine is lost, its backup remains. A
log in PostgreSQL outlives the loss of a server ([failover](failover.md)). While the parent is dead nothing is answered
until it is started again. Only `softstep verify` finds a flipped bit in the id index; until then a retry may count as a
new event, or be rejected.
"""

READING = """
## How to read the tables

A *case* is one fault at one place. Only cases in which the fault met a call are counted; the target is the count that a
full run must reach. A *violation* is a case in which something was lost, duplicated, reordered or silently wrong
afterwards. A process that failed with an error other than the service's own is a violation too.
"""


def store_results(page: Page, name: str, rows: Iterable[ResultRow], share: float, seconds: float) -> None:
    """Store the results of a campaign until the page is written."""
    page.results.mkdir(parents=True, exist_ok=True)
    results = {
        "rows": [row._asdict() for row in rows],
        "share": share,
        "seconds": round(seconds),
        "facts": page.facts(),
    }
    (page.results / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")


def write_page(page: Page, campaigns: Mapping[str, Campaign]) -> None:
    """Write a page from the stored results."""
    found = {name: page.results / f"{name}.json" for name in campaigns}
    results = {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}
    page.path.write_text(
        make_page(page, results, {name: description(campaign) for name, campaign in campaigns.items()})
    )


def description(campaign: Campaign) -> str:
    """Return the docstring of a campaign's module."""
    return (sys.modules[campaign.__module__].__doc__ or "").strip()


def make_page(page: Page, results: Mapping[str, Any], descriptions: Mapping[str, str]) -> str:
    """Return the text of a page.

    Args:
        page: The page.
        results: The stored results of each campaign.
        descriptions: The description of each campaign.
    """
    violations = sum(row["violations"] for result in results.values() for row in result["rows"])
    parts = [page.head, f"\n**Violations in all campaigns: {violations}.**\n", READING]
    for name, result in results.items():
        parts.append(f"\n## {name.capitalize()}\n\n{descriptions[name]}\n\n{make_table(result)}")
    return "".join([*parts, "\n## Environment\n\n", *(f"- {fact}\n" for fact in distinct_facts(results))])


def make_table(result: Mapping[str, Any]) -> str:
    """Return the table of one campaign, with the share that was run and the time it took."""
    share = f"A share of {result['share']:g} of the campaign. " if result["share"] < 1 else ""
    rows = "".join(make_row(ResultRow(**row)) for row in result["rows"])
    head = "| fault | cases | target | violations | |\n|---|---:|---:|---:|---|\n"
    return f"{head}{rows}\n{share}It took {result['seconds'] / 60:.1f} minutes.\n"


def make_row(row: ResultRow) -> str:
    """Return one row of a table."""
    note = row.note.replace("|", "\\|").replace("\n", " ")
    return f"| {row.fault} | {row.count:,} | {row.target:,} | {row.violations} | {note} |\n"


def distinct_facts(results: Mapping[str, Any]) -> list[str]:
    """Return the facts of all runs, each once."""
    return list(dict.fromkeys(fact for result in results.values() for fact in result["facts"]))


def machine_facts() -> list[str]:
    """Return the date, and the machine by its kind."""
    cores = len(re.findall(r"^processor\s*:", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    return [f"{time.strftime('%Y-%m-%d')}", f"Linux {platform.release()} on {platform.machine()}, {cores} cores"]


def facts() -> list[str]:
    """Return the facts of docs/reliability.md."""
    reason = "a kill loses nothing of the system's cache, and strace fails calls before they reach a disk"
    disk = mount_type(MOUNTS.read_text(), Path("/tmp"))  # noqa: S108  # where whole services keep their data
    return [
        *machine_facts(),
        f"kills, restores and disks on tmpfs if available ({reason}), the others on {disk}",
        f"SQLite {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()}), Python {platform.python_version()}",
    ]


RELIABILITY = Page(ROOT / "docs" / "reliability.md", ROOT / "build" / "torture", HEAD, facts)
