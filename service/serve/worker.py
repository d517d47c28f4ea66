"""One worker process: its parts are put together here, and serve until SIGTERM."""

import asyncio
import contextlib
import gc
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import uvicorn
from fastapi import FastAPI

from service.fields.column_blocks import FieldLimits
from service.log_events import logger
from service.log_limit import LineLimit
from service.logs import AccessLog
from service.process.shared_memory import READY, SharedMemory
from service.process.wakeup import Wakeup
from service.serve.api.app import make_app
from service.serve.api.dependencies import Context
from service.serve.authorization.access_files import AccessFiles
from service.serve.authorization.authorizer import make_authorizer
from service.serve.authorization.certificate_scopes import CertificateScopes
from service.serve.grpc_port import make_grpc_port
from service.serve.handlers.dispatcher import Dispatcher, Handler
from service.serve.handlers.explain import ExplainHandler
from service.serve.handlers.feedback import LearningOffHandler
from service.serve.handlers.health import Health
from service.serve.handlers.history_answers import HistoryHandler
from service.serve.handlers.infer import InferHandler
from service.serve.handlers.invoke import InvokeHandler
from service.serve.handlers.learning import Learning, make_learning
from service.serve.handlers.load_shedding import LoadShedder
from service.serve.handlers.long_work import LongWork
from service.serve.handlers.min_seq import MinSeqWaiter
from service.serve.handlers.predict import PredictHandler
from service.serve.handlers.probes import make_probes
from service.serve.handlers.report_files import ReportFiles
from service.serve.handlers.trajectory import TrajectoryHandler
from service.serve.handlers.turns import Turns
from service.serve.handlers.weights import WeightsHandler
from service.serve.http.logged_protocol import LoggedProtocol
from service.serve.http.protocol import SoftstepProtocol
from service.serve.http.server import Server
from service.serve.http.shared_state import SharedState
from service.serve.http.tls_context import GRPC_PROTOCOLS, watch_tls
from service.serve.limits.bucket_table import BucketTable
from service.serve.limits.limiter import Limiters
from service.serve.log.shared_requests import make_load_unload
from service.serve.log.worker_log import WorkerLog
from service.serve.metrics.counters import WorkerCounters
from service.serve.models.endpoint import EXPLAIN, INFER, INVOKE, PREDICT, READS, VERTEX
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ModelResources
from service.serve.origins import Origins
from service.serve.request_id import REQUEST_IDS
from service.serve.thread_priority import lower_thread_priority
from service.serve.wire.feedback_tokens import TokenKeys
from service.settings import Settings
from service.store.artifact.repository import Repository
from service.store.directory.data_directory import DataDirectory
from service.store.directory.mapped_artifacts import MappedArtifacts

# One thread runs long kernel calls while the other scans the models directory.
THREADS: Final = 2


class WorkerLinks(NamedTuple):
    """Connections between workers and learner.

    Attributes:
        data: The data directory.
        keys: The keys of feedback tokens.
        learner_wakeup: Wakes the learner.
        worker_wakeups: Wakes each worker.
    """

    data: DataDirectory
    keys: TokenKeys
    learner_wakeup: Wakeup
    worker_wakeups: tuple[Wakeup, ...]


class Worker:
    """The parts of one worker; without links it does not learn."""

    def __init__(
        self,
        settings: Settings,
        shared_memory: SharedMemory,
        slot: int,
        pipe: int,
        links: WorkerLinks | None = None,
        *,
        actor_key: bytes,
    ) -> None:
        self.settings = settings
        self.shared_memory = shared_memory
        self.counters = WorkerCounters(shared_memory, slot)
        self.executor = ThreadPoolExecutor(THREADS, "softstep")
        self.preparer = ThreadPoolExecutor(1, "softstep-prepare", lower_thread_priority)
        self.explainer = ThreadPoolExecutor(1, "softstep-explain")
        self.work = LongWork(self.explainer, settings.queue_seconds)
        self.turns = Turns()
        self.tls = watch_tls(settings)
        certificates = None if settings.tls_subjects is None else CertificateScopes(settings.tls_subjects, actor_key)
        self.authorizer = make_authorizer(settings, certificates, actor_key, shared_memory)
        self.grpc_tls = None if settings.grpc_port is None else watch_tls(settings, GRPC_PROTOCOLS)
        watched = (self.tls, self.grpc_tls, None if certificates is None else certificates.file)
        self.access_files = AccessFiles(self.authorizer, [files for files in watched if files is not None])
        self.limiters = Limiters(BucketTable(shared_memory), slot)
        self.decoder = ThreadPoolExecutor(1, "softstep-decode")
        limits = FieldLimits(settings.fields_max, settings.columns_max, settings.entries_max)
        data = None if links is None else links.data
        artifacts = MappedArtifacts(data)
        numbers = settings.artifact_bytes_max, settings.models_max
        repository = Repository(settings.models, *numbers, limits, artifacts.share)
        resources = ModelResources(settings, self.counters, self.executor, self.preparer, data)
        self.registry = ModelRegistry(repository, artifacts, resources)
        self._snapshot_wakeup = None if links is None else links.worker_wakeups[slot]
        self.learning = None if links is None else self._make_learning(links, shared_memory, slot)
        learning = self.learning
        writer, branches = (None, None) if learning is None else (learning.writer, learning.branches)
        self.load_unload = make_load_unload(shared_memory, slot, pipe, self.registry, writer if settings.log else None)
        self.load = LoadShedder(self.turns, writer, settings.queue_seconds)
        waiter = MinSeqWaiter(self.registry, self.turns, settings.min_seq_seconds, branches)
        past_states = None if learning is None else learning.past_states
        explained_by = (self.registry, settings, self.counters, waiter, self.work, self.limiters)
        self.explain = ExplainHandler(*explained_by, past_states)
        self.reports = ReportFiles(self.registry, data)
        status = None if self.learning is None else self.learning.status
        self.history = HistoryHandler(self.reports, status, shared_memory, self.counters)
        self.dispatcher = self._make_dispatcher(waiter)
        health = Health(self.registry, shared_memory, settings, learns=links is not None)
        probes = make_probes(health, settings.health_route)
        access_log = AccessLog(settings.log_format) if settings.access_log else None
        # The forms of responses, which the shared state makes, take their numbers from the source of this moment.
        recorded = None if access_log is None else REQUEST_IDS.record_numbers()
        parts = (self.registry, self.dispatcher, probes, self.counters, settings)
        self.shared = SharedState(*parts, memory=shared_memory, access_log=access_log)
        self.authorizer.on_change.append(self.shared.heads.forget)
        self.authorizer.on_expiry.append(self.shared.heads.forget_expired)
        self.protocol: type[SoftstepProtocol] = SoftstepProtocol.bound(self.shared)
        if access_log is not None and recorded is not None:
            self.protocol = LoggedProtocol.logging(self.shared, access_log, recorded)
        self.context = self._make_context(shared_memory, health, access_log)

    def _make_context(self, shared_memory: SharedMemory, health: Health, access_log: AccessLog | None) -> Context:
        """Give FastAPI's routes the parts that they use."""
        learning = self.learning
        data = None if learning is None else learning.data
        return Context(
            self.settings,
            shared_memory,
            self.registry,
            self.dispatcher,
            self.load_unload,
            WeightsHandler(None if learning is None else learning.past_states),
            self.history,
            TrajectoryHandler(self.reports, data, self.settings, self.work, self.limiters),
            health,
            self.work,
            self.decoder,
            self.shared,
            learning,
            access_log,
        )

    def _make_learning(self, links: WorkerLinks, shared_memory: SharedMemory, slot: int) -> Learning:
        """Make the parts that learn; the writer's thread starts with the event loop."""
        log = WorkerLog(self.registry, links.data, shared_memory, slot, self.settings)
        if self.settings.log is not None:
            self.registry.on_wait.append(links.learner_wakeup.notify)
        parts = (self.registry, self.limiters, self.turns, self.counters, self.settings)
        return make_learning(*parts, log=log, data=links.data, keys=links.keys, learner_wakeup=links.learner_wakeup)

    def _make_dispatcher(self, waiter: MinSeqWaiter) -> Dispatcher:
        """Give each kind of request its handler."""
        feedback = LearningOffHandler() if self.learning is None else self.learning.feedback
        limiters = self.limiters
        predict = PredictHandler(self.settings, waiter, feedback.seal_rows, limiters)
        handlers: dict[int, Handler] = {
            PREDICT: predict.respond,
            INVOKE: InvokeHandler(predict, waiter, limiters, extra_fields=False).respond,
            VERTEX: InvokeHandler(predict, waiter, limiters, extra_fields=True).respond,
            INFER: InferHandler(self.explain.infer_explanations, limiters).respond,
            EXPLAIN: self.explain.respond,
            **dict.fromkeys(READS, self.history.respond),
        }
        origins = Origins(self.settings.cors_origins)
        parts = (self.turns, self.authorizer, limiters, self.load)
        return Dispatcher(handlers, feedback.start, origins, *parts, body_bytes_max=self.settings.body_bytes_max)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Scan the models before the first request, and again and again until the last."""
        is_caught_up = self._is_caught_up
        await asyncio.gather(self.authorizer.start(), self.load_unload.rescan_models())
        self.registry.is_caught_up = is_caught_up
        self._publish_readiness()
        tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self.access_files.follow())]
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.access_files.reread)
        if self._snapshot_wakeup is not None:
            tasks.append(asyncio.create_task(self._follow(self._snapshot_wakeup)))
        if self.learning is not None:
            self.learning.writer.start()
        yield
        for task in tasks:
            task.cancel()
        if self.learning is not None:
            await self.learning.past_states.close()
            await self.learning.writer.close()
        for executor in (self.executor, self.preparer, self.explainer, self.decoder):
            executor.shutdown(wait=False, cancel_futures=True)

    def _publish_readiness(self) -> None:
        self.counters.set_gauge(READY, int(bool(self.registry.now.served) and self.registry.is_caught_up))

    @property
    def _is_caught_up(self) -> bool:
        """Whether snapshots that are read from now on hold all that a shared log had when the service started."""
        is_required = self.learning is not None and self.settings.log is not None and not self.settings.serve_unlearned
        return not is_required or self.shared_memory.is_caught_up

    async def _follow(self, wakeup: Wakeup) -> None:
        """Serve each snapshot that the learner publishes, or the newest of several, and map what it has written."""
        published = asyncio.Event()
        asyncio.get_running_loop().add_reader(wakeup.fd, published.set)
        try:
            while True:
                await published.wait()
                published.clear()
                wakeup.clear()
                is_caught_up = self._is_caught_up
                await self.registry.serve_snapshots()
                self.registry.is_caught_up = is_caught_up
                self._publish_readiness()
                if self.registry.awaits_bases:
                    await self.load_unload.rescan_models()
        finally:
            asyncio.get_running_loop().remove_reader(wakeup.fd)

    async def _watch(self) -> None:
        """Follow the models directory and load or unload requests; a scan that fails is logged and retried."""
        scanned, faults = time.monotonic(), LineLimit()
        while True:
            await asyncio.sleep(min(0.05, self.settings.scan_seconds))
            self._publish_readiness()
            if not self.load_unload.pending and time.monotonic() - scanned < self.settings.scan_seconds:
                continue
            try:
                await self.load_unload.rescan_models()
            except Exception as error:
                if faults.is_due(type(error).__name__):
                    logger.exception("scan_failed")
            scanned = time.monotonic()


def config_of(app: FastAPI, http: type[asyncio.Protocol]) -> uvicorn.Config:
    """Return uvicorn's configuration of one worker."""
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        log_config=None,
        access_log=False,  # uvicorn's own; the service has another one
        server_header=False,
        headers=[("server", "softstep")],
        proxy_headers=False,
    )


def run(  # noqa: PLR0917  # the first four are bound before the fork
    settings: Settings,
    shared_memory: SharedMemory,
    links: WorkerLinks | None,
    actor_key: bytes,
    slot: int,
    listeners: Sequence[socket.socket],
    pipe: int,
) -> None:
    """Serve from listening sockets until SIGTERM; the last one is that of gRPC if the settings have its port."""
    REQUEST_IDS.renew()
    worker = Worker(settings, shared_memory, slot, pipe, links, actor_key=actor_key)
    app = make_app(worker.context, worker.counters, worker.lifespan)
    config = config_of(app, worker.protocol)
    # What stays until the end would be collected in pauses: 88 ms beside 2,200 connections (measured by hand).
    gc.collect()
    gc.freeze()
    grpc = make_grpc_port(worker.context, app, worker.grpc_tls)
    Server(config, settings, shared_memory, worker.shared, worker.tls, grpc).run(sockets=list(listeners))
