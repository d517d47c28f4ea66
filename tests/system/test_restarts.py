"""Restarts under load fail no request: of a service that clients use directly, and of one behind nginx."""

from pathlib import Path
from types import ModuleType

from tests.support.programs import program
from tests.support.scripts import load_script

CONNECTIONS = 8
# The script waits after each restart behind nginx until nginx uses the backend again; one restart needs no wait.
SETTINGS = {"workers": 2, "drain_seconds": 0.5}
PAUSE_SECONDS = 0.01


def load_restarts() -> ModuleType:
    """Return the script, whose clients make pauses."""
    restarts = load_script("loadtest/restarts.py")
    restarts.PAUSE_SECONDS = PAUSE_SECONDS
    return restarts


def test_restarts_fail_no_request_of_direct_clients(tmp_path: Path) -> None:
    """Each answer during the drain closes its connection, and connections that are refused have sent nothing."""
    restarts = load_restarts()
    tally = restarts.restart_directly(tmp_path / "service", CONNECTIONS, 1, **SETTINGS)
    assert tally.failures == []
    assert tally.answered > 10 * CONNECTIONS
    assert tally.closed >= CONNECTIONS
    assert tally.refused > 0


def test_restarts_fail_no_request_behind_nginx(tmp_path: Path) -> None:
    """The other service answers meanwhile, and nginx repeats no POST that it has sent."""
    program("nginx")
    restarts = load_restarts()
    tmp_path.chmod(0o755)  # nginx's worker may be another user
    tally = restarts.restart_behind_nginx(tmp_path, CONNECTIONS, 1, keep=False, **SETTINGS)
    assert tally.failures == []
    assert tally.answered > 10 * CONNECTIONS
