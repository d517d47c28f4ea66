"""Run the campaigns on a feedback log in PostgreSQL and write docs/failover.md from their results.

    python -m tests.torture.failover                 run every campaign, then write the page
    python -m tests.torture.failover --only kills    run these campaigns
    python -m tests.torture.failover --share 0.1     run a tenth of each
    python -m tests.torture.failover --write         write the page from stored results

Results are stored in build/failover, one file per campaign, so that campaigns can run separately.
"""

import platform
import subprocess
import sys

import psycopg

from service.markdown_table import make_table
from service.store.mount_types import MOUNTS, mount_type
from tests.support.paths import ROOT
from tests.support.postgres_servers import cluster_parent, find_programs
from tests.torture import false_acknowledgements, primary_kills, replicas_under_load, stopped_writers
from tests.torture.campaign_command import run_command
from tests.torture.report import Page, machine_facts
from tests.torture.results import Campaign

CAMPAIGNS: dict[str, Campaign] = {
    "kills": primary_kills.run_campaign,
    "acknowledgements": false_acknowledgements.run_campaign,
    "stops": stopped_writers.run_campaign,
    "replicas": replicas_under_load.run_campaign,
}

HEAD = """\
# Failover

What a feedback log in PostgreSQL keeps when its servers fail, and how often that was tested. `make failover` runs the
campaigns below against real servers and writes this page; `make test` runs a part of each. The promises of a log on one
machine are on the page about [reliability](reliability.md); 10,000 random failovers of services that learn are
[simulated](simulation.md).

## Promises

- **Acknowledged events are kept.** An event that was acknowledged is on two servers. After the primary is lost and its
  synchronous standby is promoted, the event is there once, at its seq.
- **No answer that only looks like success is an acknowledgement.** If it is unknown whether the standby has an event,
  the answer is 503, and a retry with the same id is safe.
- **A stopped writer does not stop the others** for longer than the database allows a transaction to be idle.

The promises need what the schema and the settings require: `synchronous_commit=on`, and `synchronous_standby_names`
set on every server before it can become the primary. A service acknowledges nothing within a second after the server
loaded its configuration, because COMMIT may still go by the old one.
"""
OUTAGES, CASES = "`tests/system/test_postgres_outages.py`", "`tests/torture/test_failover.py`"
REPLICAS = "`tests/system/test_replicas.py`"
FAULTS = (
    (
        "database down or cut off", "go on", "503 with `Retry-After`", "the same ids are stored once, and learned",
        OUTAGES,
    ),
    ("primary lost, standby promoted", "go on", "503 until then", "each retried id has one seq", "kills, replicas"),
    (
        "standby cut off", "go on", "503 after `SOFTSTEP_LOG_SECONDS`", "a retry finds out whether the event is stored",
        "acknowledgements",
    ),
    (
        "start without the database", "answered; not ready unless `SOFTSTEP_SERVE_UNLEARNED` is set", "503",
        "ready once it has caught up", REPLICAS,
    ),
    (
        "standby promoted that lacks events", "go on", "accepted; what waits gets 409",
        "learning is held while the log is shorter, then goes back to what both have", REPLICAS,
    ),
    ("old primary comes back", "go on", "not acknowledged there", "not followed: events are missing or differ", CASES),
    (
        "writer stopped during an append", "go on", "others wait for about a second",
        "the writer's event is not acknowledged; a retry is safe", "stops",
    ),
    (
        "many services lose the server", "go on", "503 until each is connected again",
        "each tries again after a pause, longer each time and in part random", CASES,
    ),
    (
        "a later release with another fold takes over", "go on, from the last state",
        "accepted, up to the limit of lag", "older services are held until they are upgraded",
        "`tests/system/test_two_releases.py`",
    ),
    (
        "clocks of replicas differ by hours", "go on", "accepted; tokens of another replica may expire early",
        "the same is learned, because nothing compares two clocks", "`tests/system/test_skewed_clocks.py`",
    ),
)  # fmt: skip
TABLE = make_table(("fault", "predictions", "feedback", "afterwards", "tested"), FAULTS)


def facts() -> list[str]:
    """Return the facts that a reader needs to judge the numbers."""
    version = subprocess.run(
        [f"{find_programs()}/postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout.split()
    disk = mount_type(MOUNTS.read_text(), cluster_parent())
    return [
        *machine_facts(),
        f"PostgreSQL {version[2]} with fsync=on, all servers on this machine, on {disk}",
        f"psycopg {psycopg.__version__}, Python {platform.python_version()}",
    ]


PAGE = Page(ROOT / "docs" / "failover.md", ROOT / "build" / "failover", f"{HEAD}\n## Faults\n\n{TABLE}\n", facts)

if __name__ == "__main__":
    sys.exit(run_command("python -m tests.torture.failover", str(__doc__), CAMPAIGNS, PAGE))
