"""One worker process: puts the room's parts together and serves until it is told to stop."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import uvicorn
from fastapi import FastAPI

from service.process.shared_memory import READY, SharedMemory
from service.process.wakeup import Wakeup
from service.serve.api.app import make_app
from service.serve.api.dependencies import Context
from service.serve.handlers.explain import ExplainHandler
from service.serve.handlers.feedback import FeedbackHandler
from service.serve.handlers.predict import PredictHandler
from service.serve.handlers.weights import WeightsHandler
from service.serve.http.protocol import SoftstepProtocol
from service.serve.http.shared_state import SharedState
from service.serve.log.worker_log import WorkerLog
from service.serve.log.writer import Writer
from service.serve.log.writer_thread import WriterCallbacks
from service.serve.metrics.counters import WorkerCounters
from service.serve.models.load_unload import LoadUnload
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ModelResources
from service.serve.request_id import REQUEST_IDS
from service.serve.thread_priority import give_way
from service.serve.wire.feedback_tokens import TokenKeys
from service.settings import Settings
from service.store.artifact.repository import Repository
from service.store.directory.data_directory import DataDirectory

logger = logging.getLogger("softstep.worker")

# One thread computes long kernel calls while the other looks at the models directory.
THREADS: Final = 2
# The event loop's own share of a shutdown, so that the parent need not kill.
GRACE_SHARE: Final = 0.8


class WorkerLinks(NamedTuple):
    """What ties workers and learner together.

    Attributes:
        data: Where streams are kept.
        keys: Of the feedback tokens.
        heard: Rings the learner.
        published: Of each worker the bell that the learner rings.
    """

    data: DataDirectory
    keys: TokenKeys
    heard: Wakeup
    published: tuple[Wakeup, ...]


class Worker:
    """Everything that one worker is made of; without wires nothing is learned."""

    def __init__(
        self, settings: Settings, board: SharedMemory, slot: int, pipe: int, wires: WorkerLinks | None = None
    ) -> None:
        self.settings = settings
        self.meter = WorkerCounters(board, slot)
        self.executor = ThreadPoolExecutor(THREADS, "softstep")
        self.preparer = ThreadPoolExecutor(1, "softstep-prepare", give_way)
        repository = Repository(settings.models, settings.artifact_bytes_max, settings.models_max)
        data = None if wires is None else wires.data
        self.live = ModelRegistry(repository, ModelResources(settings, self.meter, self.executor, self.preparer, data))
        self._bell = None if wires is None else wires.published[slot]
        self.answers = PredictHandler(self.live, self.meter, settings)
        self.explainer = ThreadPoolExecutor(1, "softstep-explain")
        self.answers.explaining = ExplainHandler(self.answers, self.explainer)
        self.orders = LoadUnload(board, slot, pipe, self.live)
        self.teaching = None if wires is None else self._teaching(wires, board, slot)
        if self.teaching is not None:
            self.answers.teach, self.answers.seal = self.teaching.feedback, self.teaching.seal
        weights = WeightsHandler(self.teaching, settings)
        self.context = Context(
            settings, board, self.live, self.answers, self.orders, weights, self.explainer, self.teaching
        )
        self.gate = SharedState(self.answers, self.meter, settings)

    def _teaching(self, wires: WorkerLinks, board: SharedMemory, slot: int) -> FeedbackHandler:
        """What takes feedback; its thread is started with the event loop."""
        settings, data = self.settings, wires.data
        ledger = WorkerLog(self.live, data, board, slot, settings)
        writer = Writer(
            WriterCallbacks(
                ledger.open_log, ledger.bind_artifact, ledger.mark_committed, wires.heard, self.meter.count_commit
            ),
            settings.feedback_waiting_max,
            settings.feedback_waiting_bytes_max,
        )
        return FeedbackHandler(self.live, writer, data, wires.keys, settings)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Look at the models before the first request, and keep looking until the last."""
        await self.orders.rescan_models()
        tasks = [asyncio.create_task(self._watch())]
        if self._bell is not None:
            tasks.append(asyncio.create_task(self._follow(self._bell)))
        if self.teaching is not None:
            self.teaching.writer.start()
        yield
        for task in tasks:
            task.cancel()
        if self.teaching is not None:
            await self.teaching.writer.close()
        for executor in (self.executor, self.preparer, self.explainer):
            executor.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, bell: Wakeup) -> None:
        """Serve each snapshot that the learner publishes, or the newest of those that came while one was made ready."""
        rung = asyncio.Event()
        asyncio.get_running_loop().add_reader(bell.fd, rung.set)
        try:
            while True:
                await rung.wait()
                rung.clear()
                bell.clear()
                await self.live.renew()
        finally:
            asyncio.get_running_loop().remove_reader(bell.fd)

    async def _watch(self) -> None:
        """Follow the models directory and the orders; a look that fails is told and tried again."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(min(0.05, self.settings.scan_seconds))
            self.meter.set_gauge(READY, int(bool(self.live.now.served)))
            if not self.orders.pending and time.monotonic() - looked < self.settings.scan_seconds:
                continue
            try:
                await self.orders.rescan_models()
            except Exception:
                logger.exception("looking at the models directory broke")
            looked = time.monotonic()


class Server(uvicorn.Server):
    """uvicorn's server, which also keeps the deadlines of its connections and ends without raising its signal again."""

    def __init__(self, config: uvicorn.Config, gate: SharedState) -> None:
        super().__init__(config)
        self._gate = gate

    async def on_tick(self, counter: int) -> bool:
        """Do what is due ten times a second."""
        state = self.server_state
        self._gate.tick(state.connections, len(state.tasks), asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and forget it then: uvicorn would raise it again, and the exit code would be the signal's."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def config_of(settings: Settings, app: FastAPI, http: type[asyncio.Protocol]) -> uvicorn.Config:
    """Uvicorn's configuration of one worker."""
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        log_config=None,
        access_log=settings.access_log,
        server_header=False,
        headers=[("server", "softstep")],
        proxy_headers=False,
        timeout_keep_alive=int(settings.keep_alive_seconds),
        timeout_graceful_shutdown=max(1, int(settings.shutdown_seconds * GRACE_SHARE)),
    )


def run(  # noqa: PLR0917  # the first three are bound before the fork
    settings: Settings, board: SharedMemory, wires: WorkerLinks | None, slot: int, listener: socket.socket, pipe: int
) -> None:
    """Serve from a listening socket until SIGTERM."""
    REQUEST_IDS.renew()
    parts = Worker(settings, board, slot, pipe, wires)
    app = make_app(parts.context, parts.meter, parts.lifespan)
    Server(config_of(settings, app, SoftstepProtocol.bound(parts.gate)), parts.gate).run(sockets=[listener])
