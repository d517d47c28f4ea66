"""Clients of a running service for mixed_load.py: threads that send one request after another and keep count.

A prediction whose connection breaks is sent once more over a new one. Feedback is sent until it is answered, always
with its id or its token. While the parent is down (`LoadState.down`) nothing counts as failed.
"""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ANSWER_SECONDS = 15.0
PAUSE_SECONDS = 0.004
ACKNOWLEDGED = {200, 202}
# Which of six calls of the client that changes the history corrects labels.
CORRECT_TURN = 3
# The codes of a retry whose event was stored by an earlier attempt and then removed by another client.
REMOVED = {"forgotten", "rolled_back"}


@dataclass
class LoadState:
    """Results and signals that the clients share.

    Attributes:
        port: The port of the service.
        stop: Set at the end.
        down: Whether the parent is dead or starting.
        outages: How often the parent was killed.
        acknowledged: The seqs under which each id was acknowledged.
        tokens: The seqs under which each token was acknowledged.
        failures: Requests that should have been answered and were not.
        posts: (sent, acknowledged) times of each event, without those that waited until they were served.
        counts: Answered requests by kind.
        slowest: The slowest prediction while the parent was running, in seconds.
    """

    port: int
    stop: threading.Event = field(default_factory=threading.Event)
    down: bool = False
    outages: int = 0
    acknowledged: dict[str, set[int]] = field(default_factory=dict)
    tokens: dict[str, set[int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    posts: list[tuple[float, float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str) -> None:
        """Count one more answered request of a kind."""
        with self.lock:
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def acknowledge(self, name: str, seq: int) -> None:
        """Record that an id was acknowledged under a seq."""
        with self.lock:
            self.acknowledged.setdefault(name, set()).add(seq)


class Client(threading.Thread):
    """A thread that repeats an action over one connection, which it opens again after a failure."""

    def __init__(self, load: LoadState, seed: int, action: Callable[["Client"], None]) -> None:
        super().__init__(daemon=True)
        self.load = load
        self.rng = random.Random(seed)
        self.generator = np.random.default_rng(seed)
        self.number = 0
        self.name = f"c{seed}"
        self._action = action
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        try:
            while not self.load.stop.wait(PAUSE_SECONDS):
                self.number += 1
                self._action(self)
        except Exception as error:  # noqa: BLE001  # any exception in a client is a failure of the service
            self.load.failures.append(f"{self.name}: {error!r}")
        finally:
            if self._connection is not None:
                self._connection.close()

    def send_request(self, path: str, body: Any) -> tuple[int, Any]:
        """Send one request; the status is 0 if the connection broke."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self.load.port, timeout=ANSWER_SECONDS)
            self._connection.request("POST", f"/v1/models/iris:{path}", json.dumps(body))
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return 0, {}

    def make_row(self) -> list[float]:
        """Return a row of float32 values, so that its bytes in the log are known."""
        return [float(x) for x in self.generator.uniform(0.1, 7.0, 4).astype(np.float32)]

    def post_until_acknowledged(self, path: str, body: Any) -> Any:
        """Post until the answer is an acknowledgement; return it, or None if there is none or the event was removed."""
        while not self.load.stop.is_set():
            status, answer = self.send_request(path, body)
            if status in ACKNOWLEDGED:
                return answer
            if status not in {0, 409, 429, 503}:
                self.load.failures.append(f"{path}: {status}")
                return None
            if answer.get("code") in REMOVED:
                self.load.count("events removed before they were acknowledged")
                return None
            if status == 409:  # the wait timed out; the event is stored
                path = path.partition("?")[0]
            time.sleep(0.02)
        return None


def predict(client: Client) -> None:
    """Send a prediction, and once more if its connection breaks."""
    load = client.load
    body: dict[str, Any] = {"instances": [client.make_row()]}
    started, outages = time.monotonic(), load.outages
    status, _ = client.send_request("predict", body)
    if status == 0:
        if not load.down:
            load.count("predictions sent again")
        status, _ = client.send_request("predict", body)
    if status == 200:
        load.count("predictions")
        if outages == load.outages and not load.down:
            load.slowest = max(load.slowest, time.monotonic() - started)
    elif outages == load.outages and not load.down:
        load.failures.append(f"prediction: {status}")
    else:
        time.sleep(0.05)


def post_feedback(client: Client) -> None:
    """Post feedback for one row; some posts wait until it is served, some then predict with its seq."""
    name = f"{client.name}-{client.number}"
    waits = client.rng.random() < 0.1
    body = {"id": name, "instances": [client.make_row()], "labels": [client.rng.randrange(3)]}
    started = time.monotonic()
    answer = client.post_until_acknowledged("feedback?wait=true" if waits else "feedback", body)
    if answer is None:
        return
    client.load.acknowledge(name, answer["seq"])
    client.load.count("events")
    if not waits:
        client.load.posts.append((started, time.monotonic()))
    if client.rng.random() < 0.1:
        status, prediction = client.send_request(
            "predict", {"instances": [client.make_row()], "min_seq": answer["seq"]}
        )
        if status == 200:
            client.load.count("predictions of a seq")
            if prediction["seq"] < answer["seq"]:
                client.load.failures.append("a prediction is older than its min_seq")
    if client.rng.random() < 0.05:  # as a client does that did not receive the answer
        second = client.post_until_acknowledged("feedback", body)
        if second is not None:
            client.load.acknowledge(name, second["seq"])


def post_by_token(client: Client) -> None:
    """Predict with a feedback token, then post the label with the token."""
    status, prediction = client.send_request("predict", {"instances": [client.make_row()], "feedback_tokens": True})
    if status != 200:
        time.sleep(0.02)
        return
    (token,) = prediction["feedback_tokens"]
    answer = client.post_until_acknowledged("feedback", {"tokens": [token], "labels": [client.rng.randrange(3)]})
    if answer is not None:
        client.load.tokens.setdefault(token, set()).update(event["seq"] for event in answer["events"])
        client.load.count("events by token")
    time.sleep(0.02)


def correct_events(client: Client, name: str, ids: list[str]) -> None:
    """Correct the labels of events of one row; the service refuses all of them if one is no longer learned."""
    body = {"id": name, "ids": ids, "labels": [[client.rng.randrange(3)] for _ in ids]}
    while not client.load.stop.is_set():
        status, answer = client.send_request("correct", body)
        if status in ACKNOWLEDGED:
            for event in answer["events"]:
                client.load.acknowledge(event["id"], event["seq"])
            client.load.count("corrections")
        elif status not in {0, 409, 429, 503}:
            client.load.failures.append(f"correct: {status}")
        if status not in {0, 429, 503}:
            return
        time.sleep(0.02)


def post_admin(client: Client) -> None:
    """Forget events every three seconds; every sixth time roll back by some events, or correct some, instead."""
    if client.load.stop.wait(3.0):
        return
    name = f"{client.name}-{client.number}"
    with client.load.lock:
        # The ids of this client are admin events, not feedback.
        known = [one for one in client.load.acknowledged.items() if not one[0].startswith(f"{client.name}-")][-50:]
    chosen = [id_ for id_, _ in client.rng.sample(known, min(3, len(known)))]
    if client.number % 6 == CORRECT_TURN:
        if chosen:
            correct_events(client, name, chosen)
        return
    if client.number % 6:
        action, body = "forget", {"id": name, "ids": chosen}
    else:
        action, body = "rollback", {"id": name, "seq": max(0, max(max(seqs) for _, seqs in known) - 20) if known else 0}
    answer = client.post_until_acknowledged(action, body) if known else None
    if answer is not None:
        client.load.acknowledge(name, answer["seq"])
        client.load.count(f"{action}s")
