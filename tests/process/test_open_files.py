"""The limit of open files."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

PROGRAM = """
import resource
from service.process.open_files import allow_connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
allow_connections({count})
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "count", "after"),
    [(256, 4096, 1000, 2024), (256, 1500, 1000, 1500), (4000, 4096, 1000, 4000)],
)
def test_connections_raise_the_limit_of_open_files(soft: int, hard: int, count: int, after: int) -> None:
    """The soft limit grows up to the hard limit, and is never lowered."""
    program = PROGRAM.format(soft=soft, hard=hard, count=count)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(after), str(hard)]
