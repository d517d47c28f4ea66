"""A real service under more load than it can answer refuses some of it early, and answers the rest."""

from pathlib import Path

from tests.support.scripts import load_script

# Requests of so many rows take a fraction of a millisecond each, on any machine.
ROWS, CONNECTIONS, SECONDS = 256, 32, 2.0
QUEUE_SECONDS = 0.0001
# Load is shed after a second without an idle moment, which a busy machine may not give at once.
RUNS_MAX = 10
STATUSES = {"prediction": {200, 503}, "feedback": {202, 503}}


def test_overload_is_shed(tmp_path: Path) -> None:
    """Predictions and feedback get 200, 202 or 503 alone, some of each, and no connection breaks."""
    overload = load_script("loadtest/overload.py")
    service = overload.CheckoutService(overload.free_port(), tmp_path, {"queue_seconds": QUEUE_SECONDS})
    requests, seen = overload.Requests(ROWS), {name: set[int]() for name in STATUSES}
    with service.running():
        for _ in range(RUNS_MAX):
            loads = overload.run_at(service.port, requests, None, CONNECTIONS, SECONDS)
            assert sum(load.broken for load in loads.values()) == 0
            for name, load in loads.items():
                seen[name] |= {answer.status for answer in load.answers}
            if seen == STATUSES:
                break
    assert seen == STATUSES
    assert '"overload_began"' in (tmp_path / "log").read_text()
