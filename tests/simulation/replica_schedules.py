"""Schedules of three replicas over one log that forks, by a seed; a schedule that breaks a promise is made shorter."""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import FOLD_VERSION, compute_genesis
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, dump_seq
from service.store.log.correction_payload import encode_correction
from service.store.log.events import Draft, Kind
from service.store.log.feedback_payload import Targets, encode_rows, parse_layout
from tests.simulation.simulated_service import Replica, Servers, ViolationError, require
from tests.support.history_machine import N, restore_fold_version

REPLICAS: Final = 3
LOOKS_MAX: Final = 600  # to the head of a log of some 100 events, with all refoldings
# How often each step is drawn.
WEIGHTS: Final = {
    "feedback": 12,
    "forget": 2,
    "skip": 1,
    "correct": 2,
    "rollback": 2,
    "classes": 1,
    "configure": 1,
    "retry": 2,
    "copy": 6,
    "fail_over": 2,
    "fail_over_soon": 2,
    "look": 30,
    "checkpoint": 5,
    "snapshot": 3,
    "stop": 2,
    "lose": 1,
    "cut": 1,
    "heal": 2,
    "upgrade": 1,
    "predict": 6,
}


class Step(NamedTuple):
    """One step: what happens, to which replica, and a number that its other choices are made from."""

    action: str
    replica: int
    number: int


def draw_steps(seed: int) -> list[Step]:
    """Return the schedule of a seed."""
    rng = random.Random(seed)
    actions = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=rng.randint(20, 120))
    return [Step(action, rng.randrange(REPLICAS), rng.getrandbits(30)) for action in actions]


class Schedule:
    """A run of one schedule."""

    def __init__(self, artifact: Artifact, folder: Path, seed: int) -> None:
        self.servers: Final = Servers(artifact, compute_genesis(artifact), seed)
        self.replicas: Final = [Replica(self.servers, folder / str(at), FOLD_VERSION) for at in range(REPLICAS)]
        self._sent = 0

    def run(self, steps: Sequence[Step]) -> None:
        """Take all steps, then let every replica reach the head.

        Raises:
            ViolationError: A promise was broken.
        """
        for step in steps:
            self.take(step)
        self.finish()

    def take(self, step: Step) -> None:
        """Take one step."""
        rng, replica = random.Random(step.number), self.replicas[step.replica]
        if step.action in {"look", "checkpoint", "snapshot", "stop", "lose", "cut", "heal", "upgrade", "predict"}:
            self.act(step.action, replica, rng)
        elif step.action == "copy":
            self.servers.copy(rng.randint(self.servers.copied, self.servers.head.seq))
        elif step.action == "fail_over":
            self.servers.fail_over()
        elif step.action == "fail_over_soon":
            self.servers.reads_to_failover = rng.randint(0, 12)
        elif step.action == "retry":
            for draft in list(self.servers.unknown.values())[: rng.randint(1, 3)]:
                self.servers.append(draft)
        else:
            self.append(step.action, rng)

    def act(self, action: str, replica: Replica, rng: random.Random) -> None:
        """Let something happen to a replica."""
        if action == "look":
            limit = rng.choice([1, 2, 7, 50])
            for _ in range(rng.randint(1, 5)):
                replica.look(limit)
        elif action in {"checkpoint", "snapshot"}:
            replica.write(snapshot=action == "snapshot")
        elif action == "predict":
            replica.check_promise()
        elif action in {"cut", "heal"}:
            replica.connection.is_cut = action == "cut"
        else:
            replica.stop()
            if action == "lose":
                shutil.rmtree(replica.folder.path, ignore_errors=True)
            replica.release += action == "upgrade"

    def append(self, action: str, rng: random.Random) -> None:
        """Send an event; the log may refuse one that makes no sense in its state."""
        servers = self.servers
        number, last = servers.stream.number, servers.head.seq
        events = [event for event in servers.log.read_events(number, 0, last) if event.kind == Kind.FEEDBACK]
        if action == "feedback":
            for _ in range(rng.randint(1, 4)):
                self.send(Kind.FEEDBACK, self.random_rows(rng))
        elif action == "rollback":
            self.send(Kind.ROLLBACK, dump_seq(rng.randint(max(0, last - 12), last)))
        elif action == "classes":
            self.send(Kind.CLASSES, dump_classes([f"new{self._sent}"]))
        elif action == "configure":
            rule = rng.choice(["ftrl", "adagrad", "newton"])
            self.send(Kind.CONFIGURE, dump({"rule": rule, "constants": {}, "paused": rng.random() < 0.2}))
        elif events and action == "forget":
            self.send(Kind.FORGET, dump_forget_ids([event.id for event in rng.choices(events, k=rng.randint(1, 2))]))
        elif events and action == "skip":
            self.send(Kind.SKIP, dump_seq(rng.choice(events).seq))
        elif events and action == "correct":
            event = rng.choice(events)
            layout = parse_layout(event.payload or self.random_rows(rng))
            labels = np.array([rng.randrange(layout.n_classes) for _ in range(layout.rows)])
            self.send(Kind.CORRECT, encode_correction(event.seq, layout, Targets.INDEX, labels))

    def send(self, kind: Kind, payload: bytes) -> None:
        """Send an event with an id of its own."""
        self._sent += 1
        self.servers.append(Draft(self.servers.stream.number, kind, b"%d" % self._sent, payload, 0))

    def random_rows(self, rng: random.Random) -> bytes:
        """Return a payload of random rows."""
        rows, classes = rng.randint(1, 2), self.servers.log.stream_state(self.servers.stream.number).n_classes
        X = np.array([[rng.gauss(0, 1) for _ in range(N)] for _ in range(rows)], np.float32)
        return encode_rows(X, np.array([rng.randrange(classes) for _ in range(rows)]), Targets.INDEX, classes)

    def finish(self) -> None:
        """Heal and upgrade everything, let the replicas reach the head, and check all promises."""
        servers = self.servers
        servers.reads_to_failover = None
        newest = max(replica.release for replica in self.replicas)
        for replica in self.replicas:
            replica.connection.is_cut = False
            if replica.release < newest:
                replica.stop()
                replica.release = newest
        for _ in range(LOOKS_MAX):
            reached = [replica.look(50) for replica in self.replicas]
            if all(reached):
                break
            if any(replica.held is not None for replica in self.replicas):
                self.send(Kind.FEEDBACK, self.random_rows(random.Random(servers.head.seq)))
        require("all replicas reach the head", kept=all(reached))
        servers.copy(servers.head.seq)
        servers.check_acknowledged()
        for replica in self.replicas:
            replica.check_promise()
            replica.check_state()


def find_violation(
    artifact: Artifact, folder: Path, seed: int, steps: Sequence[Step], counts: Counter[str] | None = None
) -> str | None:
    """Run a schedule in an empty folder; return the promise that it breaks, or None.

    Args:
        artifact: The model.
        folder: The folder; it is deleted afterwards.
        seed: Of the salts of the events.
        steps: The schedule.
        counts: If given, what happened is added to it.
    """
    try:
        schedule = Schedule(artifact, folder, seed)
        schedule.run(steps)
        if counts is not None:
            counts.update(schedule.servers.counts)
    except ViolationError as violation:
        return str(violation)
    finally:
        restore_fold_version()
        shutil.rmtree(folder, ignore_errors=True)
    return None


def shorten(steps: Sequence[Step], is_violated: Callable[[Sequence[Step]], bool]) -> list[Step]:
    """Return a part of a schedule that still breaks a promise, and of which no single step can be left out."""
    kept, size = list(steps), max(1, len(steps) // 2)
    while size:
        at = 0
        while at < len(kept):
            shorter = kept[:at] + kept[at + size :]
            if is_violated(shorter):
                kept = shorter
            else:
                at += size
        size //= 2
    return kept
