"""Data directories for the tests of commands: streams of real events of the shipped iris model."""

import gc
import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from service import command_line as command
from service.learn.event_fold import EventFold
from service.learn.replay import StreamReplay
from service.store.artifact.artifact import Artifact, read_artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log import log_connection as connection
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids
from service.store.log.correction_payload import encode_correction
from service.store.log.events import Draft, EventLocation, Kind, Stream
from service.store.log.feedback_payload import Targets, encode_rows, parse_layout
from service.store.log.postgres_connection import PostgresConnection
from service.store.log.sqlite import SqliteLog
from service.store.states.state_folder import list_seqs
from service.store.states.status import read_status
from tests.support.paths import SHIPPED
from tests.support.processes import CLIENT, SECONDS
from tests.support.running_service import Service, start
from tests.support.waiting import wait_until

LIMIT = 1 << 20


def iris_artifact() -> Artifact:
    """Return the shipped model."""
    return read_artifact(SHIPPED / "iris" / "1", LIMIT)


def row_payload(seed: int, classes: int = 3) -> bytes:
    """A payload of one random row."""
    random = np.random.default_rng(seed)
    X = random.uniform(0.1, 7.0, (1, 4)).astype(np.float32)
    return encode_rows(X, random.integers(0, classes, 1), Targets.INDEX, classes)


class History:
    """One stream of a data directory, to which events are appended without a service.

    Args:
        path: The data directory.
        version: Of the model iris; its artifact is bound where the stream begins.
    """

    def __init__(self, path: Path, version: int = 1) -> None:
        self.data = DataDirectory(path)
        self.folder = self.data.stream_folder("iris", version)
        self.folder.path.mkdir(parents=True, exist_ok=True)
        bind_artifact(self.folder, iris_artifact(), LIMIT)
        self.log = SqliteLog(self.data.log)
        self.stream: Stream = self.log.open_stream("iris", version, compute_genesis(iris_artifact()), 3)

    @classmethod
    def open(cls, path: Path) -> "History":
        """Open a data directory whose only stream is of iris 1, whatever its genesis."""
        history = object.__new__(cls)
        history.data = DataDirectory(path)
        history.folder = history.data.stream_folder("iris", 1)
        history.log = SqliteLog(history.data.log)
        (history.stream,) = history.log.list_streams()
        return history

    def append(self, drafts: Iterable[Draft]) -> int:
        """Commit events, which must all be accepted; return the last seq."""
        outcomes = self.log.append(list(drafts))
        assert all(isinstance(outcome, EventLocation) for outcome in outcomes), outcomes
        return self.log.stream_state(self.stream.number).seq

    def draft(self, kind: Kind, id_: str, payload: bytes) -> Draft:
        """Return an event to append."""
        return Draft(self.stream.number, kind, id_.encode(), payload, 1)

    def add_feedback(self, *ids: int | str, classes: int = 3) -> int:
        """Append feedback events of one row each."""
        return self.append(
            self.draft(Kind.FEEDBACK, str(id_), row_payload(int.from_bytes(str(id_).encode()[:8]), classes))
            for id_ in ids
        )

    def forget(self, *ids: int | str) -> int:
        """Forget events."""
        payload = dump_forget_ids([str(id_).encode() for id_ in ids])
        return self.append([self.draft(Kind.FORGET, f"forget {ids}", payload)])

    def correct(self, seq: int, label: int | list[float]) -> int:
        """Give an event of one row another label, a class or a distribution."""
        (event,) = self.log.read_events(self.stream.number, seq - 1, 1)
        kind = Targets.INDEX if isinstance(label, int) else Targets.DISTRIBUTION
        payload = encode_correction(seq, parse_layout(event.payload or b""), kind, np.array([label]))
        return self.append([self.draft(Kind.CORRECT, f"correct {seq} {label}", payload)])

    def rollback(self, seq: int) -> int:
        """Go back to a state."""
        return self.append([self.draft(Kind.ROLLBACK, f"rollback {seq}", dump({"seq": seq}))])

    def add_class(self, name: str) -> int:
        """Add a class."""
        return self.append([self.draft(Kind.CLASSES, f"class {name}", dump_classes([name]))])

    def replay(self, seq: int) -> EventFold:
        """Return state(seq), from the log and the artifact alone."""
        replay = StreamReplay(self.stream, iris_artifact(), self.log)
        list(replay.fold_to(seq))
        return replay.fold

    def published_seq(self) -> int:
        """Return the seq of the newest snapshot, 0 if there is none."""
        return max(list_seqs(self.folder.snapshots), default=0)

    def status(self) -> dict[str, Any]:
        """Return the status that the learner wrote."""
        return read_status(self.folder.path)

    def close(self) -> None:
        """Close the log."""
        self.log.close()


def run_softstep(*argv: object) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process of its own, forked where that imports the same; it is killed if it takes too long."""
    words = [str(part) for part in argv]
    with tempfile.TemporaryFile("w+") as errors:
        process = start(words, dict(os.environ), errors)
        late = threading.Timer(4 * SECONDS, process.kill)
        late.start()
        assert process.stdout is not None
        with process.stdout:
            output = process.stdout.read()
        late.cancel()
        code = process.wait(SECONDS)
        errors.seek(0)
        return subprocess.CompletedProcess(words, code, output, errors.read())


def run_command(*argv: object) -> "subprocess.CompletedProcess[str]":
    """Run a command in this process, which has imported everything already."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        try:
            code = command.main([str(part) for part in argv])
        except SystemExit as ended:
            code = int(str(ended.code))
    return subprocess.CompletedProcess(argv, code, out.getvalue(), errors.getvalue())


def json_lines(done: "subprocess.CompletedProcess[str]") -> list[Any]:
    """Return the JSON objects that a command printed."""
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def wait_learned(service: Service, seq: int) -> Any:
    """Wait until the service has learned up to an event; return the metadata of iris."""
    state: dict[str, Any] = {}

    def done() -> bool:
        answer = CLIENT.post(f"{service.url}/v1/models/iris:predict", json={"instances": [[5.1, 3.5, 1.4, 0.2]]})
        state.update(answer.json())
        return bool(state.get("seq", 0) >= seq)

    wait_until(done, SECONDS)
    return CLIENT.get(f"{service.url}/v1/models/iris").json()


def run_killed_at(tick: int, argv: Iterable[object]) -> int | None:
    """Run a command in a fork that is killed (-9) at its n-th step on the disk.

    Steps are each file that is opened for writing, renamed, removed or copied, each folder made or removed, and both
    sides of each transaction, and of each round trip to PostgreSQL.

    Returns:
        Its exit code where it ended before that step, or None where it was killed.
    """
    child = os.fork()
    if child == 0:
        code = 70
        gc.freeze()  # to visit what the tests have imported would copy all of it
        try:
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                _kill_at(tick)
                code = command.main([str(part) for part in argv])
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def _kill_at(tick: int) -> None:
    steps = itertools.count(1)

    def step() -> None:
        if next(steps) == tick:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_audit_event(event: str, arguments: tuple[Any, ...]) -> None:
        is_writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if is_writing or event in {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}:
            step()

    # The one function through which all statements go.
    transaction, exchange = connection.transaction, PostgresConnection._exchange

    @contextmanager
    def stepping(database: apsw.Connection) -> Iterator[None]:
        step()
        with transaction(database):
            yield
        step()

    def stepping_exchange(*arguments: Any) -> Any:
        step()
        results = exchange(*arguments)
        step()
        return results

    sys.addaudithook(on_audit_event)
    PostgresConnection._exchange = stepping_exchange  # type: ignore[method-assign]  # as above
    connection.transaction = stepping


def file_hashes(path: Path) -> dict[str, str]:
    """Hash every file below a folder, but for SQLite's shared memory, which is derived."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.name.endswith("-shm")
    }
