"""Real services that share a log in PostgreSQL, and what tests ask them."""

import contextlib
from pathlib import Path
from typing import Any

import httpx

from tests.support.learning_client import IRIS, metadata, post
from tests.support.running_service import Service, serving
from tests.support.waiting import SECONDS, wait_until

CLASSES = ["setosa", "versicolor", "virginica"]


def replica(models: Path, scratch: Path, address: str, **more: Any) -> contextlib.AbstractContextManager[Service]:
    """Run a service whose log is a database, in the environment because it has a password."""
    scratch.mkdir(exist_ok=True)
    return serving(models, scratch, SOFTSTEP_LOG=address, SOFTSTEP_LOG_COPIES=1, **more)


def teach(service: Service, *names: object) -> list[int]:
    """Send an event for each name, as row and id; return their seqs."""
    seqs = []
    for name in names:
        row = [(byte % 70 + 1) / 10 for byte in str(name).encode()[-4:].ljust(4)]
        label = CLASSES[sum(str(name).encode()) % 3]
        answer = post(service, "iris:feedback", {"id": str(name), "instances": [row], "labels": [label]})
        assert answer.status_code == 202, answer.text
        seqs.append(answer.json()["seq"])
    return seqs


def learned(service: Service, seq: int) -> str:
    """Wait until a service has learned exactly up to an event; return the hash of its weights."""
    wait_until(lambda: metadata(service, "iris")["seq"] >= seq, SECONDS)
    found = metadata(service, "iris")
    assert found["seq"] == seq
    return str(found["weights_sha256"])


def readiness(service: Service) -> int:
    """Return the status of a service's readiness."""
    return httpx.get(f"{service.url}/readyz", timeout=SECONDS).status_code


def predict(service: Service, **members: object) -> Any:
    """Return the answer to a prediction."""
    answer = post(service, "iris:predict", {"instances": [IRIS], **members})
    assert answer.status_code == 200, answer.text
    return answer.json()
