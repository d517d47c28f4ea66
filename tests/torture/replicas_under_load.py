"""The primary of three services' log is killed under load, and the better of two standbys promoted.

Three `softstep serve` share a log in PostgreSQL: a primary and two standbys, of which a COMMIT waits for one. Eight
clients post feedback and two predict, each request to a service by chance. All processes of the primary are killed
(-9). A second later the standby that has received more is promoted, and the other one follows it. The killed server
then becomes a standby, and the next kill follows.

At the end every acknowledged event must be in the log once, at its seq. All three services must serve the weights of a
replay of the log, to the bit. A prediction fails if a service answers it with anything but 200.
"""

import http.client
import json
import random
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from service.store.artifact.hashing import hash_tensors
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from tests.support.paths import SHIPPED
from tests.support.postgres_servers import PostgresCluster, running_group
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until
from tests.torture.log_writers import Acknowledged, find_violations
from tests.torture.primary_kills import SETTINGS, shared_address
from tests.torture.reference_state import fold_lineage
from tests.torture.results import ResultRow
from tests.torture.scenario import ARTIFACT

REPLICAS, STANDBYS = 3, 2
TEACHERS, READERS = 8, 2
KILLS = 10
TARGET_EVENTS, TARGET_PREDICTIONS = 5_000, 10_000
# Before each kill, and from a kill to the promotion: nothing decides at once.
LOAD_SECONDS, DECISION_SECONDS = 4.0, 1.0
RETRY_SECONDS, WAIT_SECONDS = 0.05, 60.0
# Between two predictions of a client, so that the threads of feedback get their turns.
PAUSE_SECONDS = 0.005
# Events that show that feedback is accepted again.
PROGRESS_EVENTS = 20
EVENTS_MAX = 1 << 20
TOKEN_KEY = "00" * 32
ROW = [5.1, 3.5, 1.4, 0.2]


@dataclass
class ReplicaLoad:
    """Results that the clients share.

    Attributes:
        services: The services.
        stop: Set at the end.
        acknowledged: The seqs under which each id was acknowledged.
        feedback: Answers to feedback by status; 0: the connection broke.
        predictions: Answers to predictions by status.
    """

    services: list[Service]
    stop: threading.Event = field(default_factory=threading.Event)
    acknowledged: Acknowledged = field(default_factory=dict)
    feedback: Counter[int] = field(default_factory=Counter)
    predictions: Counter[int] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, rng: random.Random, call: str, document: object) -> tuple[int, Any]:
        """Send one request to a service by chance, over a connection of its own."""
        connection = http.client.HTTPConnection(*rng.choice(self.services).address, timeout=WAIT_SECONDS)
        with closing(connection):
            try:
                connection.request("POST", f"/v1/models/iris:{call}", json.dumps(document))
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                return 0, {}

    def teach(self, seed: int) -> None:
        """Post feedback, and each event again until it is acknowledged."""
        rng = random.Random(seed)
        while not self.stop.is_set():
            name = uuid.uuid4().hex
            row = [round(value + rng.random(), 3) for value in ROW]
            body = {"id": name, "instances": [row], "labels": [rng.randrange(3)]}
            status = -1
            while status not in {200, 202} and not self.stop.is_set():
                status, answer = self.ask(rng, "feedback", body)
                with self.lock:
                    self.feedback[status] += 1
                    if status in {200, 202}:
                        self.acknowledged.setdefault(name, set()).add(answer["seq"])
                if status not in {200, 202}:
                    time.sleep(RETRY_SECONDS)

    def read(self, seed: int) -> None:
        """Request predictions."""
        rng = random.Random(seed)
        while not self.stop.is_set():
            status, _ = self.ask(rng, "predict", {"instances": [ROW]})
            with self.lock:
                self.predictions[status] += 1
            time.sleep(PAUSE_SECONDS)


class Failover(NamedTuple):
    """The results of a run: seconds from each promotion to new acknowledgements, the load, and violations."""

    seconds: list[float]
    load: ReplicaLoad
    violations: list[str]


def run_campaign(folder: Path, share: float) -> Iterator[ResultRow]:
    """Run a share of the campaign in a folder; clusters have folders of their own."""
    found = run_failovers(folder, max(1, round(KILLS * share)))
    load, waits = found.load, sorted(found.seconds)
    statuses = ", ".join(f"{count:,} of status {status}" for status, count in sorted(load.feedback.items()))
    note = (
        f"{len(waits)} kills; feedback is accepted again {waits[len(waits) // 2]:.2f} s (median) after the promotion, "
        f"at most {waits[-1]:.2f} s; answers to feedback: {statuses}"
    )
    yield ResultRow(
        "event acknowledged by three services whose primary is killed", len(load.acknowledged), TARGET_EVENTS,
        len(found.violations), "; ".join([note, *found.violations[:3]]),
    )  # fmt: skip
    failed = load.predictions.total() - load.predictions[200]
    yield ResultRow("prediction meanwhile", load.predictions.total(), TARGET_PREDICTIONS, failed)


def run_failovers(folder: Path, kills: int) -> Failover:
    """Run three services under load, and kill and replace the primary of their log."""
    with running_group(SETTINGS, standbys=STANDBYS) as group, ExitStack() as running:
        address = shared_address(group, group[0].make_database(create_schema))
        services = [running.enter_context(start_replica(folder / f"{n}", address)) for n in range(REPLICAS)]
        load = ReplicaLoad(services)
        clients = [threading.Thread(target=load.teach, args=(seed,)) for seed in range(TEACHERS)]
        clients += [threading.Thread(target=load.read, args=(-seed,)) for seed in range(1, READERS + 1)]
        seconds = []
        try:
            for client in clients:
                client.start()
            for number in range(kills):
                wait_for_events(load)
                time.sleep(LOAD_SECONDS)
                killed, promoted = replace_primary(group)
                since = time.monotonic()
                wait_for_events(load)
                seconds.append(time.monotonic() - since)
                if number + 1 < kills:
                    killed.follow(promoted)
                    promoted.wait_for_standby(killed.name)
        finally:
            load.stop.set()
            for client in clients:
                client.join(WAIT_SECONDS)
        return Failover(seconds, load, compare(address, load))


def start_replica(folder: Path, address: str) -> Any:
    """Return a context with a running service whose log is at an address."""
    models = folder / "models"
    shutil.copytree(SHIPPED / "iris", models / "iris")
    return serving(models, folder, SOFTSTEP_LOG=address, SOFTSTEP_TOKEN_KEY=TOKEN_KEY)


def replace_primary(group: list[PostgresCluster]) -> tuple[PostgresCluster, PostgresCluster]:
    """Kill the primary, the group's first, and promote the standby that has received more; return both."""
    killed, *standbys = group
    killed.kill()
    time.sleep(DECISION_SECONDS)
    promoted, *others = sorted(standbys, key=PostgresCluster.received, reverse=True)
    promoted.promote()
    for standby in others:
        standby.switch_to(promoted)
    group[:] = [promoted, *others, killed]
    return killed, promoted


def wait_for_events(load: ReplicaLoad) -> None:
    """Wait until further events are acknowledged."""
    before = len(load.acknowledged)
    wait_until(lambda: len(load.acknowledged) >= before + PROGRESS_EVENTS, WAIT_SECONDS)


def compare(address: str, load: ReplicaLoad) -> list[str]:
    """Compare the log with the acknowledgements, and the served weights with a replay of the log."""
    with closing(PostgresLog(address)) as log:
        (stream,) = log.list_streams()
        violations = find_violations(log, stream, load.acknowledged)
        last = log.stream_state(stream.number).seq
        events = log.read_events(stream.number, 0, EVENTS_MAX)
    expected = hash_tensors(fold_lineage(ARTIFACT, events, last).state.served_parameters().tensors())
    for number, service in enumerate(load.services):
        found = wait_for_seq(lambda: metadata(service), last)  # noqa: B023  # called at once
        if (found["seq"], found["weights_sha256"]) != (last, expected):
            violations.append(f"service {number} does not serve the weights of a replay")
    return violations


def wait_for_seq(read: Callable[[], dict[str, Any]], seq: int) -> dict[str, Any]:
    """Return what a function reads once it has a seq, or after a while."""
    until = time.monotonic() + WAIT_SECONDS
    while (found := read())["seq"] < seq and time.monotonic() < until:
        time.sleep(RETRY_SECONDS)
    return found


def metadata(service: Service) -> dict[str, Any]:
    """Return what a service says about its model."""
    with closing(http.client.HTTPConnection(*service.address, timeout=WAIT_SECONDS)) as connection:
        connection.request("GET", "/v1/models/iris")
        return dict(json.loads(connection.getresponse().read()))
