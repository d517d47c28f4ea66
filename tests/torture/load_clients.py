"""Clients of a running service, for mixed_load.py: threads that send one request after the other and keep count.

A prediction whose connection dies is sent once more over a new one. Feedback is sent until it is answered, always with
its id or its token. While the parent is down (`Weather.down`) nothing counts as failed.
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
ACKED = {200, 202}


@dataclass
class Weather:
    """What the clients share.

    Attributes:
        port: Where the service is.
        stop: Set at the end.
        down: Whether the parent is dead or starting.
        outages: How often it was.
        acked: The seqs under which each id was acknowledged.
        tokens: The same of tokens, by their text.
        failures: What should have been answered and was not.
        posts: When each event was first sent, and when it was acknowledged; without those that waited to be served.
        counts: Requests that were answered, by what they were.
        slowest: Of predictions while the parent lives, in seconds.
    """

    port: int
    stop: threading.Event = field(default_factory=threading.Event)
    down: bool = False
    outages: int = 0
    acked: dict[str, set[int]] = field(default_factory=dict)
    tokens: dict[str, set[int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    posts: list[tuple[float, float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """One more of something."""
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def acknowledge(self, name: str, seq: int) -> None:
        """An id was acknowledged under a seq."""
        with self.lock:
            self.acked.setdefault(name, set()).add(seq)


class Client(threading.Thread):
    """A thread that does something again and again, over one connection that is made anew where it dies."""

    def __init__(self, weather: Weather, seed: int, do: Callable[["Client"], None]) -> None:
        super().__init__(daemon=True)
        self.weather = weather
        self.chance = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.number = 0
        self.name = f"c{seed}"
        self._do = do
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        try:
            while not self.weather.stop.wait(PAUSE_SECONDS):
                self.number += 1
                self._do(self)
        except Exception as error:  # noqa: BLE001  # a client that breaks has seen something that it must not
            self.weather.failures.append(f"{self.name}: {error!r}")
        finally:
            if self._connection is not None:
                self._connection.close()

    def call(self, path: str, body: Any) -> tuple[int, Any]:
        """One request; status 0 where the connection died."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self.weather.port, timeout=ANSWER_SECONDS)
            self._connection.request("POST", f"/v1/models/iris:{path}", json.dumps(body))
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return 0, {}

    def row(self) -> list[float]:
        """A row of numbers that are float32, so that its bytes in the log are known."""
        return [float(x) for x in self.numbers.uniform(0.1, 7.0, 4).astype(np.float32)]

    def until_acked(self, path: str, body: Any) -> Any:
        """Send something until it is acknowledged or refused; its answer, or None where there is none at the end."""
        while not self.weather.stop.is_set():
            status, answer = self.call(path, body)
            if status in ACKED:
                return answer
            if status not in {0, 409, 429, 503}:
                self.weather.failures.append(f"{path}: {status}")
                return None
            if status == 409:  # served too late for a wait; the event is kept
                path = path.partition("?")[0]
            time.sleep(0.02)
        return None


def predict(client: Client) -> None:
    """A prediction; now and then of a state that is not older than an event."""
    weather = client.weather
    body: dict[str, Any] = {"instances": [client.row()]}
    began, outages = time.monotonic(), weather.outages
    status, _ = client.call("predict", body)
    if status == 0:
        if not weather.down:
            weather.count("predictions sent again")
        status, _ = client.call("predict", body)
    if status == 200:
        weather.count("predictions")
        if outages == weather.outages and not weather.down:
            weather.slowest = max(weather.slowest, time.monotonic() - began)
    elif outages == weather.outages and not weather.down:
        weather.failures.append(f"prediction: {status}")
    else:
        time.sleep(0.05)


def teach(client: Client) -> None:
    """Feedback of a row; some wait until it is served, and some ask for a prediction of that state then."""
    name = f"{client.name}-{client.number}"
    waits = client.chance.random() < 0.1
    body = {"id": name, "instances": [client.row()], "labels": [client.chance.randrange(3)]}
    began = time.monotonic()
    answer = client.until_acked("feedback?wait=true" if waits else "feedback", body)
    if answer is None:
        return
    client.weather.acknowledge(name, answer["seq"])
    client.weather.count("events")
    if not waits:
        client.weather.posts.append((began, time.monotonic()))
    if client.chance.random() < 0.1:
        status, told = client.call("predict", {"instances": [client.row()], "min_seq": answer["seq"]})
        if status == 200:
            client.weather.count("predictions of a seq")
            if told["seq"] < answer["seq"]:
                client.weather.failures.append("a prediction is older than its min_seq")
    if client.chance.random() < 0.05:  # a client that did not hear the answer
        again = client.until_acked("feedback", body)
        if again is not None:
            client.weather.acknowledge(name, again["seq"])


def teach_tokens(client: Client) -> None:
    """A prediction with a token, and the label with the token."""
    status, told = client.call("predict", {"instances": [client.row()], "feedback_tokens": True})
    if status != 200:
        time.sleep(0.02)
        return
    (token,) = told["feedback_tokens"]
    answer = client.until_acked("feedback", {"tokens": [token], "labels": [client.chance.randrange(3)]})
    if answer is not None:
        client.weather.tokens.setdefault(token, set()).update(event["seq"] for event in answer["events"])
        client.weather.count("events by token")
    time.sleep(0.02)


def turn(client: Client) -> None:
    """A forget every few seconds, and now and then a rollback by some events."""
    if client.weather.stop.wait(3.0):
        return
    name = f"{client.name}-{client.number}"
    with client.weather.lock:
        # Not turns, which are no feedback.
        known = [one for one in client.weather.acked.items() if not one[0].startswith(f"{client.name}-")][-50:]
    if client.number % 6:
        chosen = [id_ for id_, _ in client.chance.sample(known, min(3, len(known)))]
        what, body = "forget", {"id": name, "ids": chosen}
    else:
        what, body = "rollback", {"id": name, "seq": max(0, max(max(seqs) for _, seqs in known) - 20) if known else 0}
    answer = client.until_acked(what, body) if known else None
    if answer is not None:
        client.weather.acknowledge(name, answer["seq"])
        client.weather.count(f"{what}s")
