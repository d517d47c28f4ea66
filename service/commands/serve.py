"""`softstep serve`: check the data directory, start the processes, and serve until SIGTERM."""

import argparse
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Final

from service import __version__, compiler
from service.access.actor_names import actor_key_of
from service.access.exposure import has_identities, refuse_exposure
from service.access.log_keys import copy_keys, follows_keys
from service.access.subjects_file import read_subjects
from service.errors import (
    ApiKeysError,
    KeyFileError,
    LogDamagedError,
    LogError,
    LogUnavailableError,
    TlsFileError,
)
from service.learn.learner_process import run_learner
from service.learn.receiver_process import run_receiver
from service.learn.shared_unload_list import SharedUnloadList
from service.log_events import logger
from service.logs import LineWriter, configure_logging
from service.process.listener import listen
from service.process.open_files import allow_connections
from service.process.shared_memory import SharedMemory
from service.process.supervisor import Supervisor
from service.process.wakeup import Wakeup
from service.serve import worker
from service.serve.grpc_port import resolve_grpc
from service.serve.http.tls_context import watch_tls
from service.serve.metrics.counters import ROUTES_MAX
from service.serve.models.load_unload import LoadRequests
from service.serve.wire.feedback_tokens import TokenKeys
from service.settings import Settings
from service.store.directory.ack_marks import read_marks
from service.store.directory.data_directory import DataDirectory
from service.store.directory.directory_lock import acquire_lock
from service.store.directory.keyfile import KEY_BYTES, parse_keys, read_or_create_keys, read_or_share_keys
from service.store.directory.log_opening import open_log
from service.store.directory.restore_files import delete_partial_copy
from service.store.directory.truncation import refuse_truncated_log
from service.store.filesystem import free_bytes, total_bytes
from service.store.log.database import USER_VERSION
from service.store.log.events import Position
from service.store.log.feedback_log import FeedbackLog
from service.store.states.state_folder import stored_positions

# Events between two progress points of the verification at a start.
VERIFY_EVENTS: Final = 1 << 14
# The workers of a killed parent exit within moments; until then they hold the lock of the data directory.
LOCK_SECONDS: Final = 3.0


def run(settings: Settings, _arguments: argparse.Namespace) -> int:
    """Return 0 when the service was stopped, 1 if the address, the data directory or the keys cannot be used.

    Raises:
        InvalidSettingsError: Others would reach a service without keys.
    """
    configure_logging(settings.log_format)
    try:
        check_access_files(settings)
        if not follows_keys(settings):
            refuse_exposure(settings)
        with open_data(settings) as data:
            if data is None and settings.role != "all":
                logger.event("start_failed", reason=f"a {settings.role} needs a data directory that can be written")
                return 1
            keys_unknown = follows_keys(settings) and not copy_keys(settings, can_write=data is not None)
            if not keys_unknown:
                refuse_exposure(settings)
            return _serve(settings, data, keys_unknown=keys_unknown)
    except (LogError, KeyFileError, ApiKeysError, TlsFileError) as error:
        cause = f" ({error.__cause__})" if isinstance(error, LogError) and error.__cause__ else ""
        logger.event("start_failed", reason=f"{error}{cause}")
        return 1


def check_access_files(settings: Settings) -> None:
    """Check the files of TLS before the first process needs them.

    Raises:
        TlsFileError: One cannot be read or used.
    """
    watch_tls(settings)
    if settings.tls_subjects is not None:
        try:
            read_subjects(settings.tls_subjects)
        except OSError as error:
            raise TlsFileError(f"{settings.tls_subjects} cannot be read: {error.strerror}") from None


def _serve(settings: Settings, data: DataDirectory | None, *, keys_unknown: bool) -> int:
    if settings.grpc_port is not None:  # imported before the fork, and refused here if packages are missing
        resolve_grpc()
    listeners = []
    for one in (settings.port, settings.admin_port, settings.grpc_port):
        try:
            listeners += [] if one is None else [listen(settings.host, one)]
        except OSError as error:
            logger.event("start_failed", reason=f"cannot listen on {settings.host} port {one}: {error.strerror}")
            return 1
    allow_connections(settings.connections_max)
    if compiler.FAMILY == "none":
        logger.event("slow_processor")
    urls = [_url_of(settings, listener) for listener in listeners]
    _report_address(settings, urls)
    if settings.open and not (keys_unknown or has_identities(settings)):
        logger.event("open_service", url=urls[0])
    # Versions that were replaced keep their counter rows, so there are twice as many rows as models.
    memory = SharedMemory(settings.workers, 2 * settings.models_max + ROUTES_MAX)
    memory.keys_unknown.set(int(keys_unknown))
    links = learner = None
    keys = _token_keys(settings, data)
    if data is not None:
        wakeups = tuple(Wakeup() for _ in range(settings.workers))
        links = worker.WorkerLinks(data, TokenKeys(keys), Wakeup(), wakeups)
        _begin_unload_list(settings, data, memory)
        run = run_receiver if settings.role == "worker" else run_learner
        learner = partial(run, settings, memory, links.learner_wakeup, links.worker_wakeups)
    run_worker = partial(worker.run, settings, memory, links, actor_key_of(keys[0]))
    Supervisor(settings, memory, listeners, run_worker, LoadRequests().apply_line, learner).run()
    return 0


def _url_of(settings: Settings, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _report_address(settings: Settings, urls: list[str]) -> None:
    """Write the addresses to standard output, for people and scripts, and to the log; neither can stop the service."""
    url, *others = urls
    LineWriter(sys.stdout).write(f"softstep {__version__}: {url} (kernels: {compiler.TARGET})")
    logger.event("started", url=url, release=__version__, kernels=compiler.TARGET, workers=settings.workers)
    if settings.admin_port is not None:
        logger.event("admin_port", url=others.pop(0))
    if settings.grpc_port is not None:
        logger.event("grpc_port", url=others.pop(0))


def _token_keys(settings: Settings, data: DataDirectory | None) -> list[bytes]:
    """Return the keys of feedback tokens: those of the settings, of the log or its directory, or else a random one."""
    if settings.token_key is not None:
        return parse_keys(settings.token_key.get_secret_value())
    if data is None:
        return [secrets.token_bytes(KEY_BYTES)]
    if settings.log is None:
        return read_or_create_keys(data.token_key)
    with closing(open_log(settings, data)) as log:
        return read_or_share_keys(data.token_key, log.facts)


def _begin_unload_list(settings: Settings, data: DataDirectory, memory: SharedMemory) -> None:
    """Publish which models are unloaded in a shared log, before a worker serves them."""
    if settings.log is not None:
        with closing(open_log(settings, data)) as log:
            SharedUnloadList(memory, data).begin(log.facts)


@contextmanager
def open_data(settings: Settings) -> Iterator[DataDirectory | None]:
    """Lock and check the data directory; yield None if nothing is learned.

    Raises:
        LogError: Another instance uses the directory, or the log lacks events that were acknowledged.
    """
    if not settings.learn:
        yield None
        return
    try:
        data = DataDirectory(settings.data)
        lock = acquire_lock(data, seconds=LOCK_SECONDS)
    except OSError as error:
        logger.event("learning_unavailable", directory=str(settings.data), reason=error.strerror)
        yield None
        return
    with lock:
        _warn_of_small_disk(settings)
        delete_partial_copy(data)
        data.delete_hidden_streams()
        if settings.log is None:
            _check_log(settings, data)
        else:
            _begin_shared_log(settings, data)
        yield data


def _warn_of_small_disk(settings: Settings) -> None:
    """Log a disk on which no feedback can be stored, before the first client finds out."""
    free, total = free_bytes(settings.data), total_bytes(settings.data)
    if free < settings.disk_reserve_bytes:
        logger.event(
            "disk_below_reserve", free_bytes=free, total_bytes=total, reserve_bytes=settings.disk_reserve_bytes
        )


def _begin_shared_log(settings: Settings, data: DataDirectory) -> None:
    """Begin with a log that outlives the data directory; workers serve what they have if it cannot be reached.

    Nothing is checked against the data directory, which is a cache of such a log: the learner goes back to what the log
    has (learn/lost_states.py).

    Raises:
        SoftstepError: The packages of the log are not installed.
        LogError: The log has a schema that this release cannot use.
    """
    with closing(open_log(settings, data)) as log:
        try:
            log.begin()
        except LogUnavailableError as error:
            logger.event("log_not_reached", reason=str(error))


def _check_log(settings: Settings, data: DataDirectory) -> None:
    """Check that the log has all that was acknowledged, and upgrade it if an earlier release wrote it.

    It is closed, because no connection may be inherited by a fork.

    Everything that a process of the last run reported must be in the log: the marks, checkpoints and snapshots. The
    chain of each stream is verified from its newest checkpoint, so start-up time does not depend on the log's length.
    """
    if not data.log.exists():
        return
    with closing(open_log(settings, data)) as log:
        try:
            _check_positions(data, log, checked=False)
        except LogDamagedError:
            # The damage may be in a derived file, which must not prevent the start.
            _check_positions(data, log, checked=True)
        if log.begin():
            logger.event("log_upgraded", schema=USER_VERSION)


def _check_positions(data: DataDirectory, log: FeedbackLog, *, checked: bool) -> None:
    """Check that the log reaches every mark, checkpoint and snapshot.

    Args:
        data: The data directory.
        log: Its log.
        checked: Whether to verify the checksums of checkpoints and snapshots, and pass over damaged ones.

    Raises:
        LogDamagedError: The log does not reach one of them, or its chain of hashes is broken.
    """
    reached = [mark for path in data.mark_files() for mark in read_marks(path)]
    for stream in log.list_streams():
        folder = data.stream_folder(stream.model, stream.version)
        checkpoints = stored_positions(folder.checkpoints, stream, checked=checked)
        snapshots = stored_positions(folder.snapshots, stream, checked=checked)
        reached += [(stream.number, position) for position in (*checkpoints, *snapshots)]
        since = max(checkpoints, default=Position(0, stream.genesis), key=lambda position: position.seq)
        for _ in log.verify_chain(stream.number, since, VERIFY_EVENTS):
            pass
    refuse_truncated_log(log, reached)
