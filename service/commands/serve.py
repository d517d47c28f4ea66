"""`softstep serve`: put the rooms together and serve until told to stop."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Final

import orjson

from service import __version__, compiler, logs
from service.errors import KeyFileError, LogDamagedError, LogError
from service.learn import learner_process as loop
from service.process.shared_memory import SharedMemory
from service.process.supervisor import Supervisor, listen
from service.process.wakeup import Wakeup
from service.serve import worker
from service.serve.models import load_unload as orders
from service.serve.wire.feedback_tokens import TokenKeys
from service.settings import Settings
from service.store.directory.ack_marks import read_marks, refuse_truncated_log
from service.store.directory.data_directory import DataDirectory
from service.store.directory.keyfile import parse_keys, read_or_make_keys
from service.store.directory.restore_files import delete_partial_copy
from service.store.log.events import Position
from service.store.log.sqlite import SqliteLog
from service.store.states.checkpoints import stored_positions

# Events between two looks of the verification at a start.
VERIFY_EVENTS: Final = 1 << 14
# A parent that was killed leaves workers that end within moments; until then they have the data directory.
LOCK_SECONDS: Final = 3.0


def run(settings: Settings, _arguments: argparse.Namespace) -> int:
    """Serve; 0 when it was stopped, 1 where the address cannot be listened on or the data directory not be trusted."""
    logs.set_up(as_json=settings.log_json, access=settings.access_log)
    try:
        with open_data(settings) as data:
            return _serve(settings, data)
    except (LogError, KeyFileError) as reason:
        print(f"softstep: {reason}", file=sys.stderr)
        return 1


def _serve(settings: Settings, data: DataDirectory | None) -> int:
    try:
        listener = listen(settings.host, settings.port)
    except OSError as reason:
        print(f"softstep: cannot listen on {settings.host} port {settings.port}: {reason.strerror}", file=sys.stderr)
        return 1
    if compiler.FAMILY == "none":
        print("softstep: this processor has no fused multiply-add; predictions are correct but slow", file=sys.stderr)
    host, port = listener.getsockname()[:2]
    print(
        f"softstep {__version__}: http://{f'[{host}]' if ':' in host else host}:{port} (kernels: {compiler.TARGET})",
        flush=True,
    )
    # A model that is replaced again and again leaves counters behind; twice the limit is room for many of them.
    board = SharedMemory(settings.workers, 2 * settings.models_max)
    wires = learn = None
    if data is not None:
        wires = worker.WorkerLinks(
            data, _keys(settings, data), Wakeup(), tuple(Wakeup() for _ in range(settings.workers))
        )
        learn = partial(loop.run_learner, settings, board, wires.heard, wires.published)
    unloaded: frozenset[str] = frozenset()

    def change(line: bytes) -> tuple[int, int, bytes]:
        nonlocal unloaded
        unloaded = orders.apply_line(unloaded, line)
        return *orders.parse_slot_and_token(line), orjson.dumps(sorted(unloaded))

    Supervisor(settings, board, listener, partial(worker.run, settings, board, wires), change, learn).run()
    return 0


def _keys(settings: Settings, data: DataDirectory) -> TokenKeys:
    """The keys of feedback tokens: those of the settings, else the data directory's own."""
    key = settings.token_key
    return TokenKeys(read_or_make_keys(data.token_key) if key is None else parse_keys(key.get_secret_value()))


@contextmanager
def open_data(settings: Settings) -> Iterator[DataDirectory | None]:
    """The data directory, locked, with a log that holds all that was acknowledged; None where nothing is learned.

    Raises:
        LogError: Another instance has it, or the log is not what it was.
    """
    if not settings.learn:
        yield None
        return
    try:
        data = DataDirectory(settings.data)
        lock = data.acquire_lock(seconds=LOCK_SECONDS)
    except OSError as reason:
        print(f"softstep: {settings.data} cannot be written ({reason.strerror}); nothing is learned", file=sys.stderr)
        yield None
        return
    with lock:
        delete_partial_copy(data)
        data.delete_hidden_streams()
        _check(data)
        yield data


def _check(data: DataDirectory) -> None:
    """Refuse a log that is not what was acknowledged; no connection to it is carried over a fork.

    Everything that a process told before it died is held against the log: its marks, and what it had published. The
    chain is checked from the newest checkpoint of each stream, so a start takes no longer the longer the log is.
    """
    if not data.log.exists():
        return
    with closing(SqliteLog(data.log)) as log:
        log.empty_wal()  # what a sync that failed has left becomes durable, or the start fails
        log.finish_purges()
        try:
            _hold(data, log, whole=False)
        except LogDamagedError:
            # It may be a derived file that is damaged, and that is no reason not to start.
            _hold(data, log, whole=True)


def _hold(data: DataDirectory, log: SqliteLog, *, whole: bool) -> None:
    """Hold the log to marks, checkpoints and snapshots; of these to those alone that are whole, where that is asked."""
    reached = [mark for path in data.mark_files() for mark in read_marks(path)]
    for stream in log.list_streams():
        folder = data.stream_folder(stream.model, stream.version)
        kept = stored_positions(folder.checkpoints, stream, whole=whole)
        published = stored_positions(folder.snapshots, stream, whole=whole)
        reached += [(stream.number, position) for position in (*kept, *published)]
        since = max(kept, default=Position(0, stream.genesis), key=lambda position: position.seq)
        for _ in log.verify_chain(stream.number, since, VERIFY_EVENTS):
            pass
    refuse_truncated_log(log, reached)
