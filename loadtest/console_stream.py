"""A stream of feedback that shows what the console can show: drift, a rollback, a new class and a pause.

The rows are digits of scikit-learn. From `DRIFT` on the images are mirrored, so the artifact is
wrong about most of them, and what was learned since is right again after a while.
"""

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
import numpy as np
from sklearn.datasets import load_digits

MODEL: Final = "digits"
EVENTS: Final = 3200
# Shares of the stream at which something happens.
DRIFT, ROLLED_BACK, NEW_CLASS, PAUSED, RESUMED = 0.2, 0.43, 0.52, 0.68, 0.7
UNDONE: Final = 0.03
BLANK_SHARE: Final = 0.04
SIDE: Final = 8
SECONDS: Final = 60.0

Call = tuple[str, dict[str, Any]]


def calls(events: int, seed: int = 0) -> Iterator[Call]:
    """Yield the calls of the stream: the end of a path, and a body.

    Args:
        events: How many events of feedback, each of one row.
        seed: The seed of the order of rows.
    """
    random = np.random.default_rng(seed)
    digits = load_digits()
    order = np.concatenate([random.permutation(len(digits.data)) for _ in range(events // len(digits.data) + 1)])
    changes: dict[int, Call] = {
        int(events * ROLLED_BACK): (":rollback", {"id": "back", "seq": int(events * (ROLLED_BACK - UNDONE))}),
        int(events * NEW_CLASS): (":classes", {"id": "blank", "add": ["blank"]}),
        int(events * PAUSED): (":configure", {"id": "pause", "paused": True}),
        int(events * RESUMED): (":configure", {"id": "resume", "paused": False}),
    }
    for i in range(events):
        if i in changes:
            yield changes[i]
        image, label = digits.data[order[i]].reshape(SIDE, SIDE), str(digits.target[order[i]])
        if i > events * DRIFT:
            image = image[:, ::-1]
        if i > events * NEW_CLASS and random.random() < BLANK_SHARE:
            image, label = np.minimum(random.integers(0, 3, (SIDE, SIDE)), 1).astype(float), "blank"
        yield ":feedback", {"id": f"row-{i}", "instances": [image.ravel().tolist()], "labels": [label]}


def send(url: str, events: int = EVENTS) -> None:
    """Send the stream to a service, and wait until it is served."""
    body: dict[str, Any] = {}
    path = f"{url}/v1/models/{MODEL}"
    with httpx.Client(timeout=SECONDS) as client:
        for end, body in calls(events):
            wait = {} if end == ":feedback" else {"wait": "true"}
            client.post(path + end, json=body, params=wait).raise_for_status()
        client.post(path + ":feedback", json=body, params={"wait": "true"}).raise_for_status()


def send_paced(url: str, rate: float, stop: threading.Event) -> None:
    """Send rows of the stream at a steady rate, with new ids, until an event is set."""
    path, run = f"{url}/v1/models/{MODEL}:feedback", time.time_ns()
    rows = [body for end, body in calls(1000) if end == ":feedback"]
    with httpx.Client(timeout=SECONDS) as client:
        began = time.monotonic()
        for i, body in enumerate(itertools.cycle(rows)):
            if stop.wait(max(0.0, began + i / rate - time.monotonic())):
                return
            client.post(path, json={**body, "id": f"paced-{run}-{i}"}).raise_for_status()
