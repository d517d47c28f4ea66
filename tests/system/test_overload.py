"""A real service under more load than it can answer refuses some of it early, and answers the rest."""

from collections import Counter
from pathlib import Path

from tests.support.scripts import load_script

# Requests of so many rows take a fraction of a millisecond each, on any machine.
ROWS, CONNECTIONS, SECONDS = 256, 32, 4.0
QUEUE_SECONDS = 0.001


def test_overload_is_shed(tmp_path: Path) -> None:
    """Predictions and feedback get 200, 202 or 503 alone, some of each, and no connection breaks."""
    overload = load_script("loadtest/overload.py")
    service = overload.CheckoutService(overload.free_port(), tmp_path, {"queue_seconds": QUEUE_SECONDS})
    with service.running():
        loads = overload.run_at(service.port, overload.Requests(ROWS), None, CONNECTIONS, SECONDS)
    statuses = {name: Counter(answer.status for answer in load.answers) for name, load in loads.items()}
    assert {name: set(counts) for name, counts in statuses.items()} == {
        "prediction": {200, 503},
        "feedback": {202, 503},
    }
    assert sum(load.broken for load in loads.values()) == 0
    assert '"overload_began"' in (tmp_path / "log").read_text()
