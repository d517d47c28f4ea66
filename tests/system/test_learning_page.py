"""docs/learning.md shows real requests and responses."""

import subprocess
from pathlib import Path

from tests.support.pages import sessions
from tests.support.paths import ROOT
from tests.support.running_service import serving


def test_the_page_shows_what_the_service_answers(models: Path, tmp_path: Path) -> None:
    """Each curl command of the page, run in order against a new service, prints what the page shows."""
    requests = [step for step in sessions(ROOT / "docs" / "learning.md") if step[0].startswith("curl")]
    assert requests
    with serving(models, tmp_path) as service:
        address = service.url.removeprefix("http://")
        for command, output in requests:
            shell = command.replace("localhost:8000", address)
            done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=30, check=True)  # noqa: S607
            assert done.stdout.strip() == output.strip()
