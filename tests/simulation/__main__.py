"""Run random schedules of replicas whose log forks, and write docs/simulation.md from the result.

python -m tests.simulation                 run 10,000 schedules, then write the page
python -m tests.simulation --share 0.01    run a hundredth of them
python -m tests.simulation --write         write the page from the stored result
"""

import sys
from typing import Final

from tests.simulation.schedule_campaign import run_campaign
from tests.support.paths import ROOT
from tests.torture.campaign_command import run_command
from tests.torture.report import Page, machine_facts
from tests.torture.results import Campaign

HEAD: Final = """\
# Simulation of replicas

Three services learn from one log whose servers fail over, in random schedules. `make simulation` runs them and writes
this page; `make test` runs a few. What real servers keep is on the page about [failover](failover.md).

## Promises

- **All replicas agree.** One that has reached the head of the log has the state and the history of a fold of that log,
  to the bit, whatever it has learned of events that were lost.
- **Acknowledged events are kept**, each at one seq.
- **No lost event is served** once a replica has looked at the log after a failover, and its answer to a request with
  `min_seq` covers the event that was acknowledged. Until it looks, it still answers with what it had.
- **A log that ends before what was learned is waited for.** Nothing that was learned is deleted meanwhile.
"""

PAGE: Final = Page(ROOT / "docs" / "simulation.md", ROOT / "build" / "simulation", HEAD, machine_facts)
CAMPAIGNS: Final[dict[str, Campaign]] = {"schedules": run_campaign}

if __name__ == "__main__":
    sys.exit(run_command("python -m tests.simulation", str(__doc__), CAMPAIGNS, PAGE))
