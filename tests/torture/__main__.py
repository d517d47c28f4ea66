"""Run the fault-injection campaigns and write docs/reliability.md from their results.

    python -m tests.torture                          run every campaign, then write the page
    python -m tests.torture --only kills disks       run these campaigns
    python -m tests.torture --share 0.1              run a tenth of each
    python -m tests.torture --write                  write the page from stored results

Results are stored in build/torture, one file per campaign, so that campaigns can run separately.
"""

import sys

from tests.torture import (
    bit_flips,
    disk_errors,
    fold_determinism,
    hostile_input,
    mixed_load,
    power_loss,
    process_kills,
    random_histories,
    restores_and_purges,
    sparse_bases,
)
from tests.torture.campaign_command import run_command
from tests.torture.report import RELIABILITY
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


if __name__ == "__main__":
    sys.exit(run_command("python -m tests.torture", str(__doc__), CAMPAIGNS, RELIABILITY))
